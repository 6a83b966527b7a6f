// Reads {name: JSON Schema} from stdin, compiles each with ajv in every way that hosts do, prints {name: error} of those that fail in any:
// the SDKs' own validators (draft-07 in 1.32, 2020-12 in 2.4; strict off), and strict ajv of both drafts.
import { readFileSync } from "node:fs";
import Ajv from "ajv";
import Ajv2020 from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const ways = [Ajv, Ajv2020].flatMap((Kind) =>
  [
    { strict: false, validateFormats: true, validateSchema: false, allErrors: true },
    { strict: true, allErrors: true },
  ].map((options) => [options.strict, addFormats(new Kind(options))]),
);
const failed = {};
for (const [name, schema] of Object.entries(JSON.parse(readFileSync(0, "utf8")))) {
  for (const [strict, ajv] of ways) {
    try {
      ajv.compile(schema);
    } catch (error) {
      failed[name] = `${strict ? "strict: " : ""}${error.message}`;
    }
  }
}
console.log(JSON.stringify(failed));
