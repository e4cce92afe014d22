// Type-checks grafana/dashboards/*.json with Grafana's own types (@grafana/schema): an unknown field, a missing field or a
// wrong word of an enumeration is an error. Also checks that every panel has a description, which the types do not require.
//
//   node dashboards.mjs DIR      DIR has node_modules
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const dir = process.argv[2];
const dashboards = new URL('../../grafana/dashboards/', import.meta.url);
const options = { timeseries: 'TimeSeries', stat: 'Stat', heatmap: 'Heatmap', table: 'Table' };
const mistakes = [];

const lines = [
  `import type { AnnotationQuery, Dashboard, DataQuery, FieldConfig, FieldConfigSource, Panel, RowPanel } from '@grafana/schema';`,
  ...Object.entries(options).map(([type, name]) =>
    `import type * as ${type} from '@grafana/schema/dist/esm/raw/composable/${type}/panelcfg/x/${name}PanelCfg_types.gen';`),
  // JSON has words where the types have members of an enumeration.
  `type Plain<T> = T extends string ? \`\${T}\` : T extends (infer U)[] ? Plain<U>[] : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;`,
  `type Target = DataQuery & { expr: string; legendFormat?: string; editorMode?: 'code'; range?: boolean; instant?: boolean; format?: 'table' | 'heatmap'; interval?: string };`,
  // Further fields that the Prometheus data source reads.
  `type Annotation = Omit<AnnotationQuery, 'target'> & { target?: Target; titleFormat?: string; textFormat?: string; useValueForTime?: boolean };`,
  // The type Panel does not specify the options of each kind of panel.
  `type Fields<C> = { defaults: Omit<FieldConfig, 'custom'> & { custom?: C }; overrides: FieldConfigSource['overrides'] };`,
  `type Of<O, C> = Omit<Panel, 'targets' | 'options' | 'fieldConfig'> & { targets: Target[]; options: O; fieldConfig: Fields<C> };`,
  `type Whole = Omit<Dashboard, 'panels' | 'annotations'> & { panels: unknown[]; annotations: { list: Annotation[] } };`,
];

for (const file of readdirSync(dashboards).filter((name) => name.endsWith('.json'))) {
  const dashboard = JSON.parse(readFileSync(new URL(file, dashboards), 'utf8'));
  const name = file.replace(/\W/g, '_');
  const ids = new Set(dashboard.panels.map((panel) => panel.id));
  if (ids.size !== dashboard.panels.length) mistakes.push(`${file}: two panels have one id`);
  for (const panel of dashboard.panels) {
    const fields = panel.type === 'stat' ? 'never' : `${panel.type}.FieldConfig`;
    const type = panel.type === 'row' ? 'RowPanel' : `Of<${panel.type}.Options, ${fields}>`;
    if (panel.type !== 'row' && !(panel.type in options)) mistakes.push(`${file}: no types are known for a ${panel.type}`);
    else lines.push(`const ${name}_${panel.id}: Plain<${type}> = ${JSON.stringify(panel)};`);
    mistakes.push(...missing(panel).map((what) => `${file}: the panel "${panel.title}" has no ${what}`));
  }
  lines.push(`const ${name}: Plain<Whole> = ${JSON.stringify({ ...dashboard, panels: [] })};`);
  lines.push(`export { ${name}, ${dashboard.panels.map((panel) => `${name}_${panel.id}`).join(', ')} };`);
}

function missing(panel) {
  if (panel.type === 'row') return [];
  const defaults = panel.fieldConfig?.defaults ?? {};
  return [
    !panel.description && 'description',
    !defaults.thresholds?.steps.length && 'thresholds',
    !(defaults.unit ?? panel.options.yAxis?.unit) && 'unit',
    panel.type !== 'table' && panel.targets.some((target) => !target.legendFormat) && 'legend',
  ].filter(Boolean);
}

const check = join(dir, 'dashboards.ts');
writeFileSync(check, lines.join('\n'));
try {
  const flags = ['--noEmit', '--strict', '--skipLibCheck', '--module', 'nodenext', '--moduleResolution', 'nodenext', '--target', 'es2022'];
  execFileSync(join(dir, 'node_modules/.bin/tsc'), [...flags, check], { encoding: 'utf8' });
} catch (failure) {
  mistakes.push(failure.stdout || String(failure));
}
if (mistakes.length) {
  console.error(mistakes.join('\n'));
  process.exit(1);
}
console.log('grafana/dashboards fit the types of @grafana/schema');
