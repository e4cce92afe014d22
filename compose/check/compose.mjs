// Checks compose.yaml against the schema of the Compose specification (from dclint), and what a schema cannot express: every
// service has only the rights that the file names, images are pinned, and the file holds nothing secret.
//
//   node compose.mjs DIR      DIR has node_modules
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';

const require = createRequire(join(resolve(process.argv[2]), 'package.json'));
const yaml = require('yaml');
const Ajv = require('ajv').default;
const here = new URL('../', import.meta.url);
const text = readFileSync(new URL('compose.yaml', here), 'utf8');
const compose = yaml.parse(text, { merge: true });
const mistakes = [];
const must = (holds, mistake) => holds || mistakes.push(mistake);

const schema = JSON.parse(readFileSync(join(process.argv[2], 'node_modules/dclint/schemas/compose.schema.json'), 'utf8'));
delete schema.$schema;
const validate = new Ajv({ strict: false, allErrors: true, validateFormats: false }).compile(schema);
must(validate(compose), JSON.stringify(validate.errors, null, 1));

// The specification, section 8.3.
const limits = {
  proxy: ['0.5', '256M'],
  worker: ['1.0', '512M'],
  redis: ['${REDIS_CPUS:-0.2}', '${REDIS_MEMORY:-128M}'],
  tensorflow_serving: ['1.0', '1G'],
};

for (const [name, service] of Object.entries(compose.services)) {
  const says = (holds, what) => must(holds, `compose.yaml: ${name} ${what}`);
  says(service.read_only === true, 'may write to its root');
  // It reads the files of a checkout, whoever owns them.
  const capabilities = name === 'files' ? 'DAC_READ_SEARCH' : '';
  const added = String(service.cap_add ?? '');
  says(String(service.cap_drop) === 'ALL' && added === capabilities && !service.privileged, 'has capabilities');
  says(service.security_opt?.includes('no-new-privileges:true'), 'may gain privileges');
  says(service.restart, 'has no restart policy');
  // Fresh volumes belong to root, so the service that fills them is root. It ends by itself and has no network.
  const once = service.restart === 'no';
  says(/^[1-9]\d*:\d+$/.test(service.user) || (once && service.network_mode === 'none'), 'runs as root');
  const { cpus, memory, pids } = service.deploy?.resources?.limits ?? {};
  says(cpus && memory && pids, 'has no limits');
  if (limits[name]) says(String([cpus, memory]) === String(limits[name]), 'has other limits than the specification');
  // The proxy's check covers Redis: a command in the container of Redis would use up its processor time.
  const isChecked = name === 'redis' ? !service.healthcheck : service.healthcheck || service.build;
  says(once || isChecked, 'has no health check, or one that it must not have');
  says(service.build || /:v?\d+\.\d+\.\d+/.test(service.image), `has an image that is not pinned: ${service.image}`);
  for (const needed of Object.keys(service.depends_on ?? {})) says(compose.services[needed], `depends on ${needed}, which is not there`);
  for (const volume of service.volumes ?? []) {
    if (volume.type === 'tmpfs') continue;
    const [source] = volume.split(':');
    const known = source.startsWith('.') ? existsSync(new URL(source, here)) : source in compose.volumes;
    says(known, `mounts ${source}, which is not there`);
    // Perhaps only its owner can read the checkout; `files` copies from it.
    says(!source.startsWith('.') || name === 'files', `mounts ${source} of the checkout`);
    if (source.endsWith('-secrets') && name !== 'secrets') says(volume.endsWith(':ro'), `may change ${source}`);
  }
  for (const [variable, value] of Object.entries(service.environment ?? {})) {
    const secret = /PASSWORD|SECRET|TOKEN|API_KEY/.test(variable) && !/_FILE$/.test(variable);
    says(!secret, `has a secret in its environment: ${variable}=${value}`);
  }
  for (const port of service.ports ?? []) {
    says(port.startsWith('${PUBLISH_'), `has a port that cannot be changed: ${port}`);
    says(name === 'proxy' || port.includes(':-127.0.0.1:'), `opens ${port} to everybody`);
  }
}

const dockerfile = readFileSync(new URL('Dockerfile', here), 'utf8');
for (const [, image] of dockerfile.matchAll(/^ARG \w+_IMAGE=(\S+)/gm)) {
  must(/:.*\d{2,}/.test(image), `Dockerfile: the image is not pinned: ${image}`);
}
must(!/:latest\b/.test(text + dockerfile), 'an image is called latest');
// The health checks of our services are in their images.
for (const name of ['proxy', 'worker']) {
  const stage = dockerfile.split(/^FROM /m).find((stage) => stage.includes(` AS ${name}\n`));
  must(stage?.includes('HEALTHCHECK'), `Dockerfile: ${name} has no health check`);
}

if (mistakes.length) {
  console.error(mistakes.join('\n'));
  process.exit(1);
}
console.log('compose/compose.yaml fits the Compose specification and confines every service');
