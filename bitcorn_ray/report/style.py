"""The style sheet of all pages, and the script that draws their charts."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --card: #f6f7f9; --ink: #1b1f24; --soft: #5b6470; --line: #d9dde3;
  --link: #0b61a4; --s1: #0b61a4; --s2: #c4510a; --s3: #1a7f5a; --s4: #8440a8; --s5: #a8326e; --s6: #6a6a00;
  --seq0: #e8eef5; --seq1: #0b3d70; --good: #1a7f5a; --fair: #8f5600; --poor: #c81e3a;
  --c0: #8f1127; --c1: #d8433f; --c2: #f08a3c; --c3: #f3c969; --c4: #9cc9b5; }
:root.paper { color-scheme: light; --card: #ffffff; }
@media (prefers-color-scheme: dark) { :root:not(.paper) { --back: #14171b; --card: #1c2127; --ink: #e6e9ed;
  --soft: #9aa5b1; --line: #333b45; --link: #77b7ee;
  --s1: #77b7ee; --s2: #ff9f5a; --s3: #4cc38a; --s4: #c79bf0; --s5: #ff8fc0; --s6: #d3cf5f;
  --seq0: #232a32; --seq1: #9fd0ff; --good: #4cc38a; --fair: #f0a63a; --poor: #ff6b7f;
  --c0: #ff2d55; --c1: #e0544f; --c2: #e08a3c; --c3: #c9a94f; --c4: #2f5d4d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 20px 16px 48px; }
h1 { font-size: 1.5rem; margin: 0 0 16px; } h2 { font-size: 1.25rem; margin: 0 0 6px; }
h3 { font-size: 1rem; margin: 26px 0 4px; } h1, h2, h3, summary { overflow-wrap: anywhere; }
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
section > header dl > :last-child { grid-column: 1 / -1; }
dt { color: var(--soft); font-size: .8rem; } dd { margin: 0; overflow-wrap: anywhere; }
.note, footer { color: var(--soft); font-size: .85rem; margin: 2px 0 6px; }
.scroll { overflow-x: auto; max-height: 900px; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th { text-align: left; color: var(--soft); font-weight: 500; position: sticky; top: 0; background: var(--card); }
th, td { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:last-child:not(.n) { min-width: 240px; } .wide td { white-space: nowrap; }
#overview td:nth-child(4) { min-width: 150px; } #overview td:first-child { max-width: 320px; overflow-wrap: anywhere; }
.figure { min-width: 0; overflow: hidden; margin: 6px 0 10px; }
ul { margin: 0 0 8px; padding-left: 1.2em; } .verdict { list-style: none; padding: 0; font-size: 1.05rem; }
.verdict li { border-left: 4px solid var(--link); padding: 4px 0 4px 12px; margin: 0 0 8px; overflow-wrap: anywhere; }
p { margin: 0 0 8px; overflow-wrap: anywhere; } pre { overflow-x: auto; font-size: .85rem; margin: 8px 0; }
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
.paper main { max-width: 700px; }
@media print { body { font-size: 12px; -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  main { padding: 0; } section { border: none; padding: 0; } h2, h3, summary { break-after: avoid; }
  .figure, tr, section > header { break-inside: avoid; } .figure { overflow: visible; }
  .scroll { max-height: none; overflow: visible; } table { font-size: .7rem; } th, td { padding: 3px 5px 3px 0; }
  .wide { font-size: .58rem; } th, th.n, .wide td:not(.n) { white-space: normal; } .n { padding-left: 0; }
  td:last-child:not(.n) { min-width: 0; } button { display: none; } }
"""

SCRIPT = r"""
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const paper = document.documentElement.classList;
const narrow = () => !paper.contains('paper') && window.innerWidth < 600;
const options = {displaylogo: false, responsive: true, displayModeBar: false};

// Colours of charts are variables of the style sheet, resolved when a chart is drawn.
const coloured = value => typeof value === 'string' ? value.replace(/^var\((--\w+)\)$/, (_, name) => colour(name))
  : Array.isArray(value) ? (typeof value[value.length - 1] === 'number' ? value : value.map(coloured))
  : value && typeof value === 'object' ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v)]))
  : value;

function draw(id) {
  const chart = PAGE.charts[id];
  const axis = {gridcolor: colour('--line'), linecolor: colour('--line'), zerolinecolor: colour('--line'),
    automargin: true, fixedrange: narrow()};
  const made = {height: chart.height, margin: {l: 56, r: 12, t: 36, b: 40}, hovermode: 'closest',
    legend: {orientation: 'h', y: 1.01, yanchor: 'bottom', x: 0}, dragmode: narrow() ? false : 'zoom',
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    font: {color: colour('--ink'), size: narrow() ? 11 : 12, family: 'system-ui, sans-serif'},
    ...(paper.contains('paper') ? {width: 690} : {}), xaxis: {}, yaxis: {},
    ...coloured({...chart.layout, ...(narrow() ? chart.narrow : {})})};
  for (const name of Object.keys(made).filter(name => /^[xy]axis/.test(name))) {
    made[name] = {...axis, ...made[name]};
    if (made[name].title) made[name].title.standoff = 8;
  }
  Plotly.react(id, coloured(chart.data), made, options);
  drawn.add(id);
}

// A button switches the price axis between linear and logarithmic. On a logarithmic axis of more than a decade,
// Plotly labels every digit, and the labels overlap: nticks limits them.
document.querySelectorAll('button[data-of]').forEach(button => { button.onclick = () => {
  const axis = PAGE.charts[button.dataset.of].layout.yaxis, linear = axis.type === 'log';
  Object.assign(axis, {type: linear ? 'linear' : 'log', nticks: linear ? 0 : 3});
  button.textContent = linear ? 'logarithmic scale' : 'linear scale';
  draw(button.dataset.of);
}; });

// A chart is drawn when it comes near the screen, so that a long page opens at once.
const drawn = new Set();
const figures = [...document.querySelectorAll('.figure')];
const waiting = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(entry => {
  waiting.unobserve(entry.target); draw(entry.target.id);
}), {rootMargin: '600px'});
figures.forEach(figure => waiting.observe(figure));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => drawn.forEach(id => draw(id)));
// Paper is white and has the width of a sheet, whatever the screen is.
addEventListener('beforeprint', () => {
  paper.add('paper');
  document.querySelectorAll('details').forEach(details => { details.open = true; });
  figures.forEach(figure => draw(figure.id));
});
addEventListener('afterprint', () => {
  paper.remove('paper');
  figures.forEach(figure => { draw(figure.id); Plotly.Plots.resize(figure); });
});
"""
