/** `fusetap doctor`, for programs. */
export { type CheckResult, type Examination, examine } from './examine.js';
