"""How the quality page looks: its style sheet, its script, and the sign of each kind of defect."""

from __future__ import annotations

__all__ = ["MARKS", "SCRIPT", "STYLE"]

MARKS: dict[str, tuple[str, str, str]] = {
    # kind: in words, colour (legible on white and on black), sign
    "bad_prints": ("bad prints", "#e4002b", "x"),
    "missing_values": ("missing values", "#b5179e", "square-open"),
    "non_positive_prices": ("prices of 0 or less", "#b5179e", "square"),
    "negative_volume": ("negative volume", "#9d4edd", "square-open"),
    "ohlc_violations": ("OHLC violations", "#9d4edd", "diamond"),
    "duplicates": ("duplicates", "#e07a00", "triangle-up-open"),
    "off_grid": ("off the grid", "#0096c7", "triangle-down-open"),
    "invented_bars": ("invented bars", "#c98500", "line-ew-open"),
    "stale_bars": ("stale bars", "#5f9e00", "line-ew-open"),
    "outages": ("outages", "#e4002b", "line-ns-open"),
    "extreme_bars": ("extreme, but real", "#808080", "circle-open"),
}

STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --card: #f6f7f9; --ink: #1b1f24; --soft: #5b6470; --line: #d9dde3;
  --link: #0b61a4; --good: #1a7f5a; --fair: #8f5600; --poor: #c81e3a;
  --c0: #8f1127; --c1: #d8433f; --c2: #f08a3c; --c3: #f3c969; --c4: #9cc9b5; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --card: #1c2127; --ink: #e6e9ed; --soft: #9aa5b1;
  --line: #333b45; --link: #77b7ee; --good: #4cc38a; --fair: #f0a63a; --poor: #ff6b7f;
  --c0: #ff2d55; --c1: #e0544f; --c2: #e08a3c; --c3: #c9a94f; --c4: #2f5d4d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 20px 16px 48px; }
h1 { font-size: 1.5rem; margin: 0 0 16px; } h2 { font-size: 1.25rem; margin: 0 0 6px; }
h3 { font-size: 1rem; margin: 26px 0 4px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px;
  margin: 0 0 20px; }
section > header { display: flex; gap: 20px; align-items: flex-start; margin-bottom: 14px; }
section > header > :last-child { flex: 1; min-width: 0; }
.score { font-size: 2.1rem; font-weight: 700; line-height: 1; min-width: 92px; text-align: center; padding: 12px 8px;
  border-radius: 10px; border: 2px solid currentColor; font-variant-numeric: tabular-nums; }
.score small { display: block; font-size: .72rem; font-weight: 400; margin-top: 5px; color: var(--soft); }
.good { color: var(--good); } .fair { color: var(--fair); } .poor { color: var(--poor); }
.dot { display: inline-block; width: .6em; height: .6em; border-radius: 50%; background: currentColor;
  margin-right: .4em; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 6px 20px; margin: 0; }
dl > :last-child { grid-column: 1 / -1; }
dt { color: var(--soft); font-size: .8rem; } dd { margin: 0; overflow-wrap: anywhere; }
.note, footer { color: var(--soft); font-size: .85rem; margin: 2px 0 6px; }
.scroll { overflow-x: auto; max-height: 420px; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th { text-align: left; color: var(--soft); font-weight: 500; position: sticky; top: 0; background: var(--card); }
th, td { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.overview td:last-child { min-width: 240px; } .overview td:nth-child(4) { min-width: 150px; }
.figure { min-width: 0; overflow: hidden; }
.bar { display: flex; gap: 16px; align-items: flex-start; justify-content: space-between; }
button { font: inherit; font-size: .85rem; color: var(--ink); background: none; border: 1px solid var(--line);
  border-radius: 6px; padding: 3px 10px; cursor: pointer; white-space: nowrap; }
.n { text-align: right; white-space: nowrap; padding-left: 8px; }
a { color: var(--link); } details { border-top: 1px solid var(--line); padding: 8px 0; }
details:first-of-type { margin-top: 16px; } summary { cursor: pointer; }
summary b { color: var(--soft); font-weight: 500; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; color: var(--soft); font-size: .85rem; margin-bottom: 4px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 5px; }
.c0 { background: var(--c0); } .c1 { background: var(--c1); }
.c2 { background: var(--c2); } .c3 { background: var(--c3); } .c4 { background: var(--c4); }
@media (max-width: 600px) { main { padding: 12px 8px 32px; } section { padding: 12px 10px; }
  section > header { gap: 12px; } .score { min-width: 72px; font-size: 1.5rem; padding: 10px 4px; }
  dl { grid-template-columns: 1fr; } }
"""

SCRIPT = """
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const narrow = () => window.innerWidth < 600;
const options = {displaylogo: false, responsive: true, displayModeBar: false};

function layout(more) {
  const axis = {gridcolor: colour('--line'), linecolor: colour('--line'), zerolinecolor: colour('--line')};
  const made = {paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', dragmode: narrow() ? false : 'zoom',
    font: {color: colour('--ink'), size: narrow() ? 11 : 12, family: 'system-ui, sans-serif'}, ...more};
  made.xaxis = {...axis, ...more.xaxis}; made.yaxis = {...axis, ...more.yaxis};
  return made;
}

function drawDays(key, days) {
  const steps = [0, 1, 2, 3, 4].flatMap(n => [[n / 5, colour('--c' + n)], [(n + 1) / 5, colour('--c' + n)]]);
  const months = [...'JFMAMJJASOND'];
  const height = days.years.length * 8 * (narrow() ? 6 : 10) + 44;
  Plotly.react(key + '-days', [{type: 'heatmap', z: days.level, text: days.text, hoverinfo: 'text', showscale: false,
    zmin: -0.5, zmax: 4.5, colorscale: steps, xgap: narrow() ? 1 : 2, ygap: narrow() ? 1 : 2, hoverongaps: false}],
    layout({height: height, margin: {l: 42, r: 6, t: 22, b: 6},
      xaxis: {side: 'top', showgrid: false, zeroline: false, fixedrange: true, range: [-0.7, 53.7],
        tickvals: months.map((_, n) => n * 4.35 + 2), ticktext: months},
      yaxis: {autorange: 'reversed', showgrid: false, zeroline: false, fixedrange: true,
        tickvals: days.years.map((_, n) => 8 * n + 3), ticktext: days.years.map(String)}}), options);
}

function drawPrice(key, figure) {
  const price = figure.price, blue = colour('--link');
  const traces = [
    {x: price.time, y: price.high, mode: 'lines', line: {width: 0}, hoverinfo: 'skip', showlegend: false},
    {x: price.time, y: price.low, mode: 'lines', line: {width: 0}, fill: 'tonexty', fillcolor: 'rgba(90,140,190,0.35)',
      name: 'lowest to highest', hoverinfo: 'skip', legendrank: 2},
    {x: price.time, y: price.close, mode: 'lines', line: {width: 1, color: blue}, name: 'close', legendrank: 1,
      hovertemplate: '%{x|%Y-%m-%d %H:%M}  %{y:,.6~g}<extra></extra>'}];
  for (const [kind, [words, tint, symbol]] of Object.entries(PAGE.marks)) {
    const mark = figure.marks[kind];
    if (!mark) continue;
    traces.push({x: mark.time, y: mark.price, mode: 'markers', type: 'scatter', legendrank: 10,
      name: words + ' (' + mark.count.toLocaleString('en') + ')',
      marker: {symbol: symbol, color: tint, size: symbol.startsWith('line') ? 11 : 8, line: {width: 2, color: tint}},
      hovertemplate: words + ' %{x|%Y-%m-%d %H:%M}<extra></extra>'});
  }
  const known = price.low.filter(v => v !== null).concat(price.high.filter(v => v !== null));
  let low = Infinity, high = 0;
  for (const v of known) { low = Math.min(low, v); high = Math.max(high, v); }
  const button = document.querySelector(`button[data-of="${key}"]`);
  const log = button.dataset.log ? button.dataset.log === 'yes' : high > 8 * low;
  button.textContent = log ? 'linear scale' : 'logarithmic scale';
  button.onclick = () => { button.dataset.log = log ? 'no' : 'yes'; drawPrice(key, figure); };
  Plotly.react(key + '-price', traces, layout({height: narrow() ? 420 : 480, margin: {l: 56, r: 8, t: 8, b: 30},
    hovermode: 'closest', legend: {orientation: 'h', y: -0.12, yanchor: 'top', x: 0},
    // By itself a logarithmic axis of more than a decade names every digit, which then overlap.
    xaxis: {type: 'date'}, yaxis: {type: log ? 'log' : 'linear', tickformat: ',.6~g', nticks: log ? 3 : 0,
      fixedrange: narrow()}}), options);
}

// What is not on the screen is drawn when it comes near, so that a page of many partitions opens at once.
const waiting = new IntersectionObserver(seen => seen.filter(each => each.isIntersecting).forEach(each => {
  waiting.unobserve(each.target); draw(each.target.id); drawn.add(each.target.id);
}), {rootMargin: '600px'});
const drawn = new Set();
function draw(id) {
  const [key, what] = id.split('-');
  if (what === 'days') drawDays(key, PAGE.figures[key].days); else drawPrice(key, PAGE.figures[key]);
}
document.querySelectorAll('.figure').forEach(each => waiting.observe(each));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => drawn.forEach(draw));
"""
