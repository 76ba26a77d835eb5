/**
 * Opens a cipher with the key in the argument (JSON). Prints the engine or the error, and probe()'s report on the
 * keyring.
 */
import process from "node:process";
import { CipherHandle, type KcapiError, probe } from "../../mod.ts";

export interface Outcome {
  engine?: string;
  code?: string;
  operation?: string;
  hint?: string | undefined;
  probed: string | null;
  problem?: string | undefined;
}

const [algorithm, key] = process.argv.slice(2) as [string, string];

function open(): Omit<Outcome, "probed"> {
  try {
    using handle = CipherHandle.open(algorithm, { key: JSON.parse(key) });
    return { engine: handle.engine };
  } catch (error) {
    const { code, operation, hint } = error as KcapiError;
    return { code, operation, hint };
  }
}

const opened = open();
const { keyring, problems } = probe();
const problem = problems.find(({ what }) => what.includes("keyring"));
const outcome: Outcome = { ...opened, probed: keyring, problem: problem && `${problem.cause}; ${problem.remedy}` };
console.log(JSON.stringify(outcome));
