(() => {
  "use strict";
  const live = document.getElementById("live");
  let busy = false;
  async function refresh() {
    const selection = window.getSelection();
    const reads = selection && !selection.isCollapsed && live.contains(selection.anchorNode);
    if (busy || document.hidden || reads) return;
    busy = true;
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(8000) });
      if (answer.status === 401) return location.reload();
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = page.getElementById("live");
      if (!answer.ok || !next) throw new Error("no page");
      if (next.innerHTML !== live.innerHTML) live.replaceChildren(...next.childNodes);
      document.body.classList.remove("cut-off");
    } catch {
      document.body.classList.add("cut-off");
    } finally {
      busy = false;
    }
  }
  if (live) {
    setInterval(refresh, 3000);
    document.addEventListener("visibilitychange", refresh);
  }
})();
