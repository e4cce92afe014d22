// Checks custom resources against the types that are published for them. The types find a field that does not exist and one that has
// the wrong type; the validators of the same packages find a missing field and a wrong word.
//
//   node types.mjs DIR OBJECTS      DIR has node_modules; OBJECTS is a JSON file with a list of { place, object, isWrong }.
//                                   With isWrong, an object must be refused.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [dir, file] = process.argv.slice(2).map((path) => resolve(path));
const packages = {
  'keda.sh': 'keda',
  'monitoring.coreos.com': 'prometheus-operator',
  'gateway.networking.k8s.io': 'gateway-api',
};
const items = JSON.parse(readFileSync(file, 'utf8'));

const moduleOf = ({ apiVersion, kind }) => {
  const [group] = apiVersion.split('/');
  if (!packages[group]) throw new Error(`no types are installed for ${apiVersion} ${kind}`);
  return `@kubernetes-models/${packages[group]}/${apiVersion}/${kind}`;
};

// One line for each object, so that the number of the line says which one is wrong.
const imports = new Map();
for (const { object } of items) imports.set(object.kind, moduleOf(object));
const lines = [...imports].map(([kind, from]) => `import type { I${kind} } from '${from}';`);
const first = lines.length + 1;
items.forEach(({ object }, index) => lines.push(`export const o${index}: I${object.kind} = ${JSON.stringify(object)};`));
writeFileSync(join(dir, 'objects.ts'), lines.join('\n') + '\n');

const refusals = items.map(() => []);
const options = ['--noEmit', '--strict', '--skipLibCheck', '--target', 'es2022', '--module', 'nodenext', '--moduleResolution', 'nodenext'];
try {
  execFileSync(process.execPath, [join(dir, 'node_modules/typescript/bin/tsc'), ...options, join(dir, 'objects.ts')], { cwd: dir, encoding: 'utf8' });
} catch (failure) {
  for (const line of String(failure.stdout ?? failure).split('\n').filter(Boolean)) {
    const place = /objects\.ts\((\d+),/.exec(line);
    if (place) refusals[Number(place[1]) - first].push(line);
    else if (!line.startsWith(' ')) throw new Error(line);
  }
}
for (const [index, { object }] of items.entries()) {
  const found = join(dir, 'node_modules', moduleOf(object) + '.js');
  const Model = (await import(pathToFileURL(found).href))[object.kind];
  try {
    new Model(object).validate();
  } catch (error) {
    refusals[index].push(error.message);
  }
}

const mistakes = [];
items.forEach(({ place, isWrong }, index) => {
  if (isWrong && !refusals[index].length) mistakes.push(`${place}: is accepted`);
  if (!isWrong) mistakes.push(...refusals[index].map((refusal) => `${place}: ${refusal}`));
});
if (mistakes.length) {
  console.error(mistakes.join('\n'));
  process.exit(1);
}
const wrong = items.filter((item) => item.isWrong).length;
console.log(`${items.length - wrong} custom resources fit their published types; ${wrong} wrong ones do not`);
