// Uploads with progress, and deleting. Everything else on the page works without this script.
"use strict";
(() => {
  const AT_ONCE = 2;
  const drop = document.getElementById("drop");
  const picker = document.getElementById("picker");
  const uploads = document.getElementById("uploads");
  const status = document.getElementById("status");
  const folder = document.body.dataset.folder;
  const waiting = [];
  let running = 0;
  let failed = 0;

  for (const element of document.querySelectorAll("[data-script]")) element.hidden = false;

  function add(files, folders = new Set()) {
    if (files.length === 0) return;
    for (const file of files) {
      const line = document.createElement("li");
      const label = document.createElement("label");
      const bar = document.createElement("progress");
      const text = document.createElement("span");
      bar.max = 100;
      bar.value = 0;
      text.textContent = " waiting";
      label.append(file.name + " ", bar);
      line.append(label, text);
      uploads.append(line);
      if (folders.has(file.name)) {
        text.textContent = " not uploaded: it is a folder; open it and drop its files";
        failed += 1;
        continue;
      }
      waiting.push({ file, bar, text });
    }
    next();
  }

  function next() {
    while (running < AT_ONCE && waiting.length > 0) {
      running += 1;
      send(waiting.shift());
    }
    if (running > 0) return;
    if (failed > 0) status.textContent = failed + " uploads failed; the reasons are in the list above.";
    else location.reload();
  }

  function send({ file, bar, text }) {
    const request = new XMLHttpRequest();
    const end = (message, isFailure) => {
      text.textContent = " " + message;
      running -= 1;
      if (isFailure) failed += 1;
      next();
    };
    request.upload.onprogress = (event) => {
      if (!event.lengthComputable || event.total === 0) return;
      bar.value = (100 * event.loaded) / event.total;
      text.textContent = " " + Math.floor(bar.value) + " %";
    };
    request.onload = () => {
      const isStored = request.status >= 200 && request.status < 300;
      if (isStored) bar.value = 100;
      end(isStored ? "stored" : "failed: " + request.responseText.trim(), !isStored);
    };
    request.onerror = () => end("failed: the node does not answer, or ended the upload", true);
    request.open("PUT", folder + encoded(file.name));
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.send(file);
  }

  // A file of this name in the top folder has the path of a form; an encoded letter leads to the file.
  function encoded(name) {
    return folder === "/" && name === "upload" ? "%75pload" : encodeURIComponent(name);
  }

  async function remove(button) {
    const name = button.dataset.name;
    if (!confirm("Delete " + name + "? This cannot be undone.")) return;
    button.disabled = true;
    try {
      const response = await fetch(button.dataset.href, { method: "DELETE" });
      if (response.ok) {
        removeRow(button.closest("tr"));
        status.textContent = name + " is deleted.";
        return;
      }
      status.textContent = name + " was not deleted: " + (await response.text()).trim();
    } catch {
      status.textContent = name + " was not deleted: the node does not answer.";
    }
    button.disabled = false;
  }

  // The focus stays near the row, for those who use the keyboard.
  function removeRow(row) {
    const next = row.nextElementSibling || row.previousElementSibling;
    row.remove();
    const target = next ? next.querySelector("button.delete") : picker;
    if (target) target.focus();
  }

  // A browser gives a folder as a file that cannot be read.
  function folderNames(items) {
    const entries = Array.from(items, (item) => item.webkitGetAsEntry && item.webkitGetAsEntry());
    return new Set(entries.filter((entry) => entry && entry.isDirectory).map((entry) => entry.name));
  }

  document.addEventListener("click", (event) => {
    if (event.target.matches("button.delete")) remove(event.target);
  });
  if (!drop) return;
  picker.addEventListener("change", () => add(picker.files));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    add(event.dataTransfer.files, folderNames(event.dataTransfer.items));
  });
})();
