/** Colours of what the page draws itself; the style sheet holds the rest. Both follow the reader's system. */

export interface Palette {
  water: string;
  land: string;
  home: string;
  coast: string;
  border: string;
  ground: string;
  grid: string;
  casing: string;
  sky: string;
}

const DARK: Palette = {
  water: '#122a33',
  land: '#2b4143',
  home: '#365254',
  coast: '#5c8082',
  border: '#48625f',
  ground: '#131f23',
  grid: '#9fc3c4',
  casing: '#071013',
  sky: '#1d4c58',
};

const LIGHT: Palette = {
  water: '#cfdfe2',
  land: '#f3f3ee',
  home: '#ffffff',
  coast: '#a9bfc2',
  border: '#d3d8d2',
  ground: '#e9ece7',
  grid: '#3d5d60',
  casing: '#ffffff',
  sky: '#b9dbe4',
};

/** Told apart also by most colour-blind readers; the marker's label carries the name in any case. */
const SENSORS_DARK = ['#4cc9f0', '#ffa45b', '#c3a6ff', '#9be564', '#ff86b3', '#ffe066'];
const SENSORS_LIGHT = ['#0078b8', '#c6550c', '#7148c9', '#3f8417', '#c22f6e', '#8d6c00'];

const darkQuery = matchMedia('(prefers-color-scheme: dark)');

export const isDark = () => darkQuery.matches;
export const palette = (): Palette => (isDark() ? DARK : LIGHT);
export const reducedMotion = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

export function sensorColour(index: number): string {
  const colours = isDark() ? SENSORS_DARK : SENSORS_LIGHT;
  return colours[index % colours.length] ?? '#888888';
}

export function onThemeChange(listener: () => void): void {
  darkQuery.addEventListener('change', listener);
}
