"""How the quality page looks beside what all pages have: its script, and the sign of each kind of defect."""

from __future__ import annotations

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

SCRIPT = """
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

draw = id => {
  const [key, what] = id.split('-');
  if (what === 'days') drawDays(key, PAGE.figures[key].days); else drawPrice(key, PAGE.figures[key]);
};
"""
