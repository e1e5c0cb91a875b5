// A page in a frame asks for a table or figure by its path below the study's results.
addEventListener("message", ({ data }) => {
  const path = Object.keys(results).find((each) => each.endsWith(`/${data?.result}`));
  if (path) new ToggleViewManager(app).handleSelectedResult(path);
});
