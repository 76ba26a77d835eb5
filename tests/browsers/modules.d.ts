/** The test files of a run: `run.ts` makes this module. */
declare module "kcapi:tests";
