/** The style sheet of the page: light and dark, wide and narrow. On a narrow screen each row of a table is a card. */

const DARK = `--paper:#0d1117;--ink:#f0f3f6;--faint:#9da7b3;--line:#30363d;--card:#161b22;--bad:#ff9b94;--good:#56d364;--mark:#3d8fd1`;
const LIGHT = `--paper:#fff;--ink:#1f2328;--faint:#59636e;--line:#d1d9e0;--card:#f6f8fa;--bad:#b3261e;--good:#1a7f37;--mark:#0072b2`;

export const PAGE_CSS = `
:root{color-scheme:light dark;${LIGHT}}
@media(prefers-color-scheme:dark){:root{${DARK}}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:90rem;padding:0 1rem 2rem;background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,sans-serif}
header{display:flex;flex-wrap:wrap;gap:.25rem 1rem;align-items:baseline;padding-top:.75rem}
h1{font-size:1.3rem;margin:0}
h2{font-size:1rem;margin:1.5rem 0 .4rem}
#link{margin:0;color:var(--faint)}
#link::before{content:"●";margin-right:.4em;color:var(--faint)}
#link.good::before{color:var(--good)}
#link.bad{color:var(--bad);font-weight:600}
#link.bad::before{content:"▲";color:var(--bad)}
#notices{list-style:none;margin:.5rem 0 0;padding:0}
#notices li{border-left:4px solid var(--mark);background:var(--card);padding:.3rem .7rem;margin-top:.3rem}
#notices li.bad{border-color:var(--bad)}
table{border-collapse:collapse;width:100%}
#buses{width:auto;min-width:50%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:baseline}
th{font-size:.85em;color:var(--faint);font-weight:600;white-space:nowrap}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.image{overflow-wrap:anywhere;min-width:12rem}
.name,.image,#tree,#events{unicode-bidi:isolate}
.bad{color:var(--bad);font-weight:600}
.partition td:first-child{padding-left:1.8rem}
.empty{color:var(--faint)}
.stale table,.stale #chosen{opacity:.55}
button{font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);border-radius:5px;padding:.15rem .6rem;cursor:pointer}
button:hover{border-color:var(--mark)}
button[aria-pressed=true]{background:var(--mark);border-color:var(--mark);color:#fff}
:focus-visible{outline:3px solid var(--mark);outline-offset:1px}
.buttons{margin:.3rem 0}
#chosen-state{color:var(--faint)}
#views{display:grid;grid-template-columns:minmax(0,auto) minmax(0,1fr);gap:1rem;align-items:start}
#map{display:block;max-width:100%;height:auto}
#tree,#events{background:var(--card);border:1px solid var(--line);border-radius:5px;padding:.6rem .8rem;overflow:auto;font:13px/1.5 ui-monospace,monospace}
#tree{max-height:42rem;margin:0}
#events{list-style:none;margin:0;max-height:22rem}
#events li{overflow-wrap:anywhere}
#events li.bad{font-weight:400}
#events .bus{color:var(--mark);font-weight:600;margin-right:.8em}
@media(max-width:75rem){#views{grid-template-columns:minmax(0,1fr)}}
@media(max-width:60rem){
#buses{width:100%}
thead{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}
table,tbody,tr,td{display:block}
tr{border:1px solid var(--line);border-radius:5px;margin-bottom:.6rem;padding:.4rem .6rem;display:grid;grid-template-columns:repeat(auto-fill,minmax(7.6rem,1fr));gap:0 .9rem}
td{border:0;padding:.1rem 0;display:flex;justify-content:space-between;gap:.5rem}
td::before{content:attr(data-label);color:var(--faint);font-size:.85em}
td.name,td.image{grid-column:1/-1}
td.name{font-weight:600}
td.name::before,td.image::before{content:none}
td.image{min-width:0;color:var(--faint)}
.partition td:first-child{padding-left:0}
}
`;
