/**
 * The name of the tool, and its version.
 *
 * @module
 */

export const VERSION = "0.1.0";
export const NAME = "kcapi-streams";
