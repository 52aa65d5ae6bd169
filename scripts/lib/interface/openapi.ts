/**
 * Makes docs/openapi.json from the table of routes that the bus itself uses. `scripts/openapi` writes it; a test
 * compares it.
 */
import { type ConversionConfig, toJsonSchema, toJsonSchemaDefs } from '@valibot/to-json-schema';
import type { GenericSchema } from 'valibot';
import { NAMED_ANSWERS } from '../../../mount/control/answers.js';
import { INTERFACE_VERSION } from '../../../mount/control/interface.js';
import { ROUTES, type Row } from '../../../mount/control/routes.js';

type JsonObject = Record<string, unknown>;

const PROGRESS =
  'With `accept: application/x-ndjson` the answer may come in lines of JSON: `{"progress":{"doneBytes","totalBytes"}}` ' +
  'some ten times a second, and `{"status","body"}` at the end.';

/** The document, ready for JSON. */
export function makeOpenApi(): JsonObject {
  const paths: Record<string, JsonObject> = {};
  for (const [name, row] of Object.entries<Row>(ROUTES)) {
    const [method = '', path = ''] = row.line.split(' ');
    paths[path] = { ...paths[path], [method.toLowerCase()]: describe(name, path, row) };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'The control interface of a fusetap bus',
      version: INTERFACE_VERSION,
      description:
        'HTTP over the Unix socket state/NAME/control.sock of the runtime directory. Requests may carry the header ' +
        '`fusetap-interface: MAJOR.MINOR`; another MAJOR is refused. Within a MAJOR requests go on working, and answers ' +
        'only get more keys.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: 'http://fusetap', description: 'the host name means nothing: the socket is the bus' }],
    paths,
    components: { schemas: open(toJsonSchemaDefs(NAMED_ANSWERS, ANSWERED)) },
  };
}

function describe(
  name: string,
  path: string,
  { summary, query, body, answer, status, tellsProgress }: Row,
): JsonObject {
  const parameters = [...(path.includes('{vdev}') ? [VDEV] : []), ...(query ? queryParameters(query) : [])];
  return {
    operationId: name,
    summary,
    ...(tellsProgress && { description: PROGRESS }),
    ...(parameters.length > 0 && { parameters }),
    ...(body && { requestBody: { required: true, content: json(schemaOfRequest(body)) } }),
    responses: {
      [status ?? 200]: { description: 'done', content: json(schemaOfAnswer(answer)) },
      default: {
        description: '400 USAGE, 403 DENIED, 404 NOT_FOUND, 409 BUSY, 500 FAILED, 501 UNSUPPORTED, 507 NO_SPACE',
        content: json({ $ref: '#/components/schemas/Error' }),
      },
    },
  };
}

const VDEV = {
  name: 'vdev',
  in: 'path',
  required: true,
  description: 'a vdev or a slot number',
  schema: { type: 'string' },
};

function queryParameters(query: GenericSchema): JsonObject[] {
  return Object.entries(propertiesOf(query)).map(([name, schema]) => ({ name, in: 'query', schema }));
}

/** The keys of a query or a body, and the schema of each. */
export function propertiesOf(request: GenericSchema): JsonObject {
  return schemaOfRequest(request).properties as JsonObject;
}

/** The schema of the input from a client: a key with a default may be omitted. */
function schemaOfRequest(request: GenericSchema): JsonObject {
  const { $schema: _, ...schema } = toJsonSchema(request, { typeMode: 'input' });
  return schema as JsonObject;
}

/** Schemas with a name are referenced by it. */
const ANSWERED: ConversionConfig = {
  typeMode: 'output',
  overrideRef: ({ referenceId }) => `#/components/schemas/${referenceId}`,
};

function schemaOfAnswer(answer: GenericSchema): JsonObject {
  const { $schema: _, $defs: __, ...schema } = toJsonSchema(answer, { ...ANSWERED, definitions: NAMED_ANSWERS });
  return open(schema) as JsonObject;
}

const json = (schema: JsonObject): JsonObject => ({ 'application/json': { schema } });

/** Answers have at least these keys; a newer MINOR may have more. So this removes `additionalProperties: false`. */
function open(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(open);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([key, item]) => !(key === 'additionalProperties' && item === false));
  return Object.fromEntries(entries.map(([key, item]) => [key, open(item)]));
}
