/** The page of `fusetap web`, before its script fills it. No text of it comes from others. */

const column = (label: string, about: string, kind = ''): string =>
  `<th scope="col"${kind === '' ? '' : ` class="${kind}"`} title="${about}">${label}</th>`;

const BUS_COLUMNS = [
  column('Bus', 'the name of the bus'),
  column('State', 'running, or what is wrong'),
  column('Restarts', 'how often its server was replaced', 'number'),
  column('Server CPU', 'of one processor', 'number'),
  column('Server memory', 'of the process that serves it', 'number'),
  column('Waiting', 'requests that are not answered yet', 'number'),
];

const DISK_COLUMNS = [
  column('Disk', 'bus and vdev: choose one to see its map'),
  column('State', 'running, paused, or what is wrong'),
  column('Reads/s', 'requests that ended in the last second', 'number'),
  column('Read B/s', 'bytes in the last second', 'number'),
  column('Writes/s', 'requests that ended in the last second', 'number'),
  column('Written B/s', 'bytes in the last second', 'number'),
  column('p50', 'half of the requests took no longer', 'number'),
  column('p99', '99 of 100 requests took no longer', 'number'),
  column('Queue', 'requests in progress, on average', 'number'),
  column('Read', 'since the attach', 'number'),
  column('Written', 'since the attach', 'number'),
  column('Errors', 'since the attach', 'number'),
  column('Image', 'the driver and the image'),
];

export const PAGE_HTML = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>fusetap</title>
<link rel="icon" href="icon.svg">
<link rel="stylesheet" href="page.css">
<script type="module" src="page.js"></script>
</head>
<body>
<header>
<h1>fusetap</h1>
<p id="link" role="status">connecting …</p>
</header>
<noscript><p class="bad">This page needs JavaScript.</p></noscript>
<ul id="notices" role="status" aria-label="What has just happened"></ul>
<main>
<section aria-labelledby="buses-title">
<h2 id="buses-title">Buses</h2>
<table id="buses"><thead><tr>${BUS_COLUMNS.join('')}</tr></thead><tbody></tbody></table>
<p id="no-buses" class="empty" hidden>No bus runs. <code>fusetap attach</code> starts one.</p>
</section>
<section aria-labelledby="disks-title">
<h2 id="disks-title">Disks</h2>
<table id="disks"><thead><tr>${DISK_COLUMNS.join('')}</tr></thead><tbody></tbody></table>
<p id="no-disks" class="empty" hidden>Nothing is attached.</p>
</section>
<section id="chosen" aria-labelledby="chosen-title" hidden>
<h2 id="chosen-title" tabindex="-1"></h2>
<p class="buttons"><button id="again" type="button">Look again</button> <button id="close" type="button">Close</button>
<span id="chosen-state" role="status"></span></p>
<div id="views">
<img id="map" alt="">
<pre id="tree" tabindex="0" aria-label="The tree of the disk"></pre>
</div>
</section>
<section aria-labelledby="events-title">
<h2 id="events-title">Events</h2>
<ol id="events" tabindex="0" aria-label="Events of all buses, the newest first"></ol>
</section>
</main>
</body>
</html>
`;

export const ICON_SVG = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#0072b2"/>
<path fill="#fff" d="M3 4h4v3H3zM9 4h4v3H9zM3 9h4v3H3z"/></svg>
`;
