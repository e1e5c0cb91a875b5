"use strict";

// The library lies compressed in the page, as each page of a report carries its own.
async function library() {
  const bytes = Uint8Array.from(atob(document.getElementById("datatables").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

function text(table, row, column) {
  return table.cell(row, column).node().textContent.trim();
}

// A list of the values of a column, of which one may be chosen.
function filter(table, header) {
  const column = table.column(header);
  const values = new Set(column.nodes().toArray().map((cell) => cell.textContent.trim()));
  const select = document.createElement("select");
  select.setAttribute("aria-label", header.textContent);
  select.add(new Option(`${header.textContent}: all`, ""));
  for (const value of values) select.add(new Option(value, value));
  select.addEventListener("change", () => {
    const wanted = select.value;
    const matches = (_, __, row) => text(table, row, column.index()) === wanted;
    column.search.fixed("filter", wanted === "" ? null : matches).draw();
  });
  return select;
}

// Long cells show their first lines; a click on the row unfolds them all.
function fold(table) {
  const button = document.createElement("button");
  const body = table.table().body();
  button.textContent = "Unfold all";
  button.addEventListener("click", () => {
    const open = button.textContent === "Unfold all";
    for (const row of table.rows().nodes().toArray()) row.classList.toggle("open", open);
    button.textContent = open ? "Fold all" : "Unfold all";
  });
  body.addEventListener("click", (event) => {
    if (!event.target.closest("a") && getSelection().isCollapsed) {
      event.target.closest("tr").classList.toggle("open");
    }
  });
  return button;
}

// Within the report a page stands in a frame, and the report opens what it is asked for.
function follow(event) {
  const link = event.target.closest("a[data-result]");
  if (link && parent !== window) {
    event.preventDefault();
    parent.postMessage({ result: link.dataset.result }, "*");
  }
}

async function main() {
  document.addEventListener("click", follow);
  await library();
  const table = new DataTable("table", {
    paging: false,
    order: [],
    autoWidth: false,
    columnDefs: [{ targets: "number", orderSequence: ["desc", "asc", ""] }],
    layout: { topStart: "search", topEnd: "info", bottomStart: null, bottomEnd: null },
    language: {
      search: "",
      searchPlaceholder: "Search",
      info: "_TOTAL_ of _MAX_ rows",
      infoEmpty: "0 of _MAX_ rows",
      infoFiltered: "",
      zeroRecords: "No row matches.",
    },
  });
  const search = document.querySelector(".dt-search");
  for (const header of document.querySelectorAll("th[data-filter]")) search.append(filter(table, header));
  if (document.querySelector("td.long")) search.append(fold(table));
  document.body.classList.add("ready");
}

main();
