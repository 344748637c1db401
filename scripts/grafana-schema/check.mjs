// Writes the dashboards as TypeScript literals of Grafana's own types, for tsc to judge: check.mjs OUTPUT DASHBOARD…
import { readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';

const [output, ...files] = process.argv.slice(2);
const types = { timeseries: 'TimeSeries', heatmap: 'Heatmap', stat: 'Stat', table: 'Table' };
const head = `import type { AnnotationQuery, Dashboard, FieldConfigSource, Panel, RowPanel } from '@grafana/schema';
${Object.entries(types)
  .map(([kind, name]) => {
    const file = `@grafana/schema/dist/esm/raw/composable/${kind}/panelcfg/x/${name}PanelCfg_types.gen.js`;
    return `import type * as ${name} from '${file}';`;
  })
  .join('\n')}

// JSON holds the values of enums, not their members.
type Plain<T> = T extends string ? \`\${T}\` : T extends (infer U)[] ? Plain<U>[]
  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
type Shown<O, C = Record<string, unknown>> = Plain<
  Omit<Panel, 'options' | 'fieldConfig'> & { options: O; fieldConfig: FieldConfigSource<C> }>;
type Marked = Plain<AnnotationQuery> & {
  expr: string; step: string; titleFormat: string; textFormat: string; tagKeys: string; useValueForTime?: boolean };
`;

const parts = [head];
for (const file of files) {
  const board = JSON.parse(readFileSync(file, 'utf8'));
  const name = basename(file, '.json');
  const literal = (value) => JSON.stringify(value, null, 1);
  const { panels, annotations, ...rest } = board;
  parts.push(`export const ${name}: Plain<Dashboard> = ${literal(rest)};`);
  annotations.list.forEach((annotation, i) =>
    parts.push(`export const ${name}_annotation_${i}: Marked = ${literal(annotation)};`));
  for (const panel of panels) {
    const module = types[panel.type];
    const custom = panel.type === 'stat' ? '' : `, ${module}.FieldConfig`;
    const type = panel.type === 'row' ? 'Plain<RowPanel>' : `Shown<${module}.Options${custom}>`;
    if (panel.type !== 'row' && !module) throw new Error(`${name}: ${panel.title}: no types for a ${panel.type}`);
    parts.push(`// ${panel.title}\nexport const ${name}_${panel.id}: ${type} = ${literal(panel)};`);
  }
}
writeFileSync(output, parts.join('\n\n') + '\n');
