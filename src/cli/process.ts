/**
 * The global `process`.
 *
 * `import process from "node:process"` evaluates all of its properties. In Node, that creates `process.stdout`, which
 * makes a pipe at descriptor 1 non-blocking: writes are then cut into pieces of 4,096 bytes.
 *
 * @module
 */

export const process: NodeJS.Process = globalThis.process;
