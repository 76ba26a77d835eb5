/**
 * The name and the version of the tool.
 *
 * @module
 */

export const VERSION = "0.1.0";
export const NAME = "kcapi-streams";
