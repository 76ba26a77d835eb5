/**
 * SVG charts: lines over chunk sizes, and stacked bars. White ground, so that they read in light and in dark.
 *
 * @module
 */

/** One line of a chart. */
export interface Series {
  name: string;
  color: string;
  dashed?: boolean;
  /** One for each place on the x axis. */
  values: readonly number[];
}

/** One bar, in parts. */
export interface Bar {
  name: string;
  parts: readonly { name: string; color: string; value: number }[];
}

const WIDTH = 860;
const FONT = "font-family=\"system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif\"";
const INK = "#1f2328";
const MUTED = "#57606a";
const GRID = "#e3e6ea";

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

function text(
  x: number,
  y: number,
  content: string,
  { size = 13, fill = INK, anchor = "start", weight = 400 } = {},
): string {
  return `<text x="${x}" y="${y}" font-size="${size}" fill="${fill}" text-anchor="${anchor}" font-weight="${weight}">${
    escape(content)
  }</text>`;
}

function frame(height: number, title: string, subtitle: string, content: string[]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${
      escape(title)
    }" ${FONT}>`,
    `<rect width="${WIDTH}" height="${height}" rx="8" fill="#ffffff"/>`,
    text(24, 34, title, { size: 18, weight: 600 }),
    text(24, 56, subtitle, { fill: MUTED }),
    ...content,
    "</svg>",
    "",
  ].join("\n");
}

/** Names in a row, each with `mark` of its colour in front; `y` is their base line. */
function legend(
  entries: readonly { name: string; color: string; dashed?: boolean }[],
  y: number,
  isLine: boolean,
): string[] {
  let x = 24;
  return entries.flatMap(({ name, color, dashed }) => {
    const mark = isLine
      ? `<line x1="${x}" y1="${y - 4}" x2="${x + 24}" y2="${y - 4}" stroke="${color}" stroke-width="2.5"${
        dashed ? ' stroke-dasharray="5 4"' : ""
      }/>`
      : `<rect x="${x + 10}" y="${y - 11}" width="13" height="13" rx="2" fill="${color}"/>`;
    const label = text(x + 30, y, name);
    x += 30 + 7 * name.length + 18;
    return [mark, label];
  });
}

/** A round number of at least `value / 5`: the distance of grid lines. */
function stepFor(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value / 5));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= value / 5)!;
}

/** Lines over evenly spaced places. */
export function lineChart(
  { title, subtitle, places, series, unit }: {
    title: string;
    subtitle: string;
    places: readonly string[];
    series: readonly Series[];
    unit: string;
  },
): string {
  const [left, right, top, bottom] = [64, WIDTH - 28, 118, 440];
  const step = stepFor(Math.max(...series.flatMap(({ values }) => values)));
  const most = step * Math.ceil(Math.max(...series.flatMap(({ values }) => values)) / step);
  const x = (i: number) => Math.round(left + 16 + i * (right - left - 32) / (places.length - 1));
  const y = (value: number) => Math.round(10 * (bottom - value / most * (bottom - top))) / 10;
  const content = [...legend(series, 84, true), text(left, 108, unit, { size: 12, fill: MUTED, anchor: "end" })];
  for (let value = 0; value <= most; value += step) {
    content.push(`<line x1="${left}" y1="${y(value)}" x2="${right}" y2="${y(value)}" stroke="${GRID}"/>`);
    content.push(text(left - 8, y(value) + 4, String(value), { size: 12, fill: MUTED, anchor: "end" }));
  }
  places.forEach((place, i) =>
    content.push(text(x(i), bottom + 22, place, { size: 12, fill: MUTED, anchor: "middle" }))
  );
  content.push(text((left + right) / 2, bottom + 44, "bytes per chunk", { size: 12, fill: MUTED, anchor: "middle" }));
  for (const { color, dashed, values } of series) {
    const points = values.map((value, i) => `${x(i)},${y(value)}`);
    content.push(
      `<polyline points="${points.join(" ")}" fill="none" stroke="${color}" stroke-width="2.5" stroke-linejoin="round"${
        dashed ? ' stroke-dasharray="5 4"' : ""
      }/>`,
    );
    if (!dashed) {
      values.forEach((value, i) => content.push(`<circle cx="${x(i)}" cy="${y(value)}" r="3.5" fill="${color}"/>`));
    }
  }
  return frame(bottom + 60, title, subtitle, content);
}

/** Bars of stacked parts, one under the other. */
export function barChart(
  { title, subtitle, bars, unit }: { title: string; subtitle: string; bars: readonly Bar[]; unit: string },
): string {
  const [left, right, top, height, gap] = [150, WIDTH - 90, 104, 30, 14];
  const sum = ({ parts }: Bar) => parts.reduce((total, { value }) => total + Math.max(0, value), 0);
  const most = Math.max(...bars.map(sum));
  const scale = (right - left) / most;
  const names = new Map(bars.flatMap(({ parts }) => parts.map(({ name, color }) => [name, color] as const)));
  const content = legend([...names].map(([name, color]) => ({ name, color })), 84, false);
  bars.forEach((bar, row) => {
    const y = top + row * (height + gap);
    let x = left;
    content.push(text(left - 12, y + 20, bar.name, { anchor: "end" }));
    for (const { color, value } of bar.parts) {
      const width = Math.max(0, value) * scale;
      content.push(
        `<rect x="${x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${height}" fill="${color}"/>`,
      );
      x += width;
    }
    content.push(text(x + 8, y + 20, `${sum(bar).toFixed(0)} ${unit}`, { fill: MUTED }));
  });
  return frame(top + bars.length * (height + gap) + 12, title, subtitle, content);
}
