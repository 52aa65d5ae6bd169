/**
 * docs/openapi.json, made from the schemas that the bus itself checks requests with. `scripts/openapi` writes it; a test
 * compares.
 */
import { toJsonSchema } from '@valibot/to-json-schema';
import type { GenericSchema } from 'valibot';
import * as z from 'zod';
import { INTERFACE_VERSION } from '../../../mount/control/interface.js';
import { detachQuery } from '../../../mount/control/schemas.js';
import { ANSWERS, PARTS } from './answers.js';
import { OPERATIONS, type Operation } from './operations.js';

type JsonObject = Record<string, unknown>;

const PROGRESS =
  'With `accept: application/x-ndjson` the answer may come in lines of JSON: `{"progress":{"doneBytes","totalBytes"}}` ' +
  'some ten times a second, and `{"status","body"}` at the end.';

/** The document, ready for JSON. */
export function makeOpenApi(): JsonObject {
  const paths: Record<string, JsonObject> = {};
  for (const operation of OPERATIONS) {
    const path = paths[operation.path] ?? {};
    paths[operation.path] = path;
    path[operation.method] = describe(operation);
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
    components: { schemas: answerSchemas() },
  };
}

function describe(operation: Operation): JsonObject {
  const { id, summary, request, answer, isList, status = 200, tellsProgress, path, method } = operation;
  const one = { $ref: `#/components/schemas/${answer}` };
  const schema = isList ? { type: 'array', items: one } : one;
  const parameters = [...(path.includes('{vdev}') ? [VDEV] : []), ...(method === 'delete' ? queryParameters() : [])];
  return {
    operationId: id,
    summary,
    ...(tellsProgress && { description: PROGRESS }),
    ...(parameters.length > 0 && { parameters }),
    ...(request && { requestBody: { required: true, content: json(schemaOfRequest(request)) } }),
    responses: {
      [status]: { description: 'done', content: json(schema) },
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

function queryParameters(): JsonObject[] {
  const { properties } = schemaOfRequest(detachQuery) as { properties: Record<string, JsonObject> };
  return Object.entries(properties).map(([name, schema]) => ({ name, in: 'query', schema }));
}

/** What a client sends: a key with a default may be missing. */
export function schemaOfRequest(request: GenericSchema): JsonObject {
  const { $schema: _, ...schema } = toJsonSchema(request, { typeMode: 'input' });
  return schema as JsonObject;
}

const json = (schema: JsonObject): JsonObject => ({ 'application/json': { schema } });

/** What clients are promised: these keys are there; a newer MINOR may have more. */
function answerSchemas(): JsonObject {
  const registry = z.registry<{ id: string }>();
  for (const [id, schema] of Object.entries({ ...ANSWERS, ...PARTS })) registry.add(schema, { id });
  const uri = (id: string): string => `#/components/schemas/${id}`;
  const { schemas } = z.toJSONSchema(registry, { io: 'output', uri });
  const entries = Object.entries(schemas).map(([name, { $schema: _, $id: __, ...schema }]) => [name, open(schema)]);
  return Object.fromEntries(entries);
}

/** Drops `additionalProperties: false`, at any depth. */
function open(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(open);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([key, item]) => !(key === 'additionalProperties' && item === false));
  return Object.fromEntries(entries.map(([key, item]) => [key, open(item)]));
}
