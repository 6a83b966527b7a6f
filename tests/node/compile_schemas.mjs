// Reads {name: JSON Schema} from stdin, compiles each with ajv (2020-12, strict off: as hosts do), prints {name: error} of those that fail.
import { readFileSync } from "node:fs";
import Ajv2020 from "ajv/dist/2020.js";

const failed = {};
for (const [name, schema] of Object.entries(JSON.parse(readFileSync(0, "utf8")))) {
  try {
    new Ajv2020({ strict: false, validateFormats: false }).compile(schema);
  } catch (error) {
    failed[name] = error.message;
  }
}
console.log(JSON.stringify(failed));
