// The token stands after the # of the address that was printed: it is in no request line and no log.
function show() {
  const token = location.hash.slice(1);
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  const form = document.querySelector("form");
  form.elements.token.value = token;
  form.requestSubmit();
}

addEventListener("hashchange", show);
show();
