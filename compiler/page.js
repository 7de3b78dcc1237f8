const $ = id => document.getElementById(id);
const format = value => Math.round(value).toLocaleString("en");
const percent = (part, whole) => whole ? (100 * part / whole).toFixed(1) + " %" : "";
const escape = text => text.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
const ink = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function table(id, head, rows) {
  const cells = (row, tag) => "<tr>" + row.map(cell => `<${tag}>${cell}</${tag}>`).join("") + "</tr>";
  $(id).innerHTML = `<thead>${cells(head, "th")}</thead><tbody>${rows.map(row => cells(row, "td")).join("")}</tbody>`;
}
