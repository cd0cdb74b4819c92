"""Sphinx: ``make docs`` builds the pages into build/docs."""

import shutil
from importlib.metadata import version as version_of
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent


def gather(folder, sources):
    """Copy files from outside into a folder of pages, where they change; remove what came before."""
    into = DOCS / folder
    into.mkdir(exist_ok=True)
    names = [source.name for source in sources]
    for old in into.iterdir():
        if old.name not in names:
            old.unlink()
    for source in sources:
        copy = into / source.name
        if not copy.exists() or copy.read_bytes() != source.read_bytes():
            shutil.copyfile(source, copy)


# Notebooks: those that `make notebooks` has run since they were written, and the others as they are, to be run here.
written = sorted((ROOT / "notebooks").glob("*.ipynb"))
ready = {}
for notebook in written:
    run = ROOT / "build" / "notebooks" / notebook.name
    if run.exists() and run.stat().st_mtime > notebook.stat().st_mtime:
        ready[notebook] = run
gather("notebooks", [ready.get(notebook, notebook) for notebook in written])
gather("benchmarks", sorted((ROOT / "benchmarks").glob("results-*.md")))

project = "nmf_features"
version = release = version_of("nmf-features")
language = "en-GB"
smartquotes = False  # H' is H transposed
extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc"]
exclude_patterns = ["pictures", "examples"]

html_theme = "furo"
html_title = f"nmf_features {version}"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {"light_css_variables": {"color-brand-primary": "#0b5d94", "color-brand-content": "#0b5d94"}}

myst_heading_anchors = 3  # links to a heading: page.md#words-of-the-heading
nb_execution_mode = "force"
nb_execution_excludepatterns = [f"notebooks/{notebook.name}" for notebook in ready]
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_ipywidgets_js = {}  # nothing is loaded from elsewhere

numpydoc_show_class_members = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"


def formulas_as_code(app, what, name, obj, options, lines):
    """Show an indented paragraph of a docstring, a formula, as it stands; keep | of the text from being markup."""
    above, inside, result = 0, False, []
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line.strip():
            if inside and indent <= above:
                inside = False
            if not inside and i and not lines[i - 1].strip() and indent > above:
                result += [" " * above + "::", ""]
                inside = True
            if not inside:
                above = indent
        result.append(line if inside or line.lstrip().startswith(">>>") else line.replace("|", r"\|"))
    lines[:] = result


def setup(app):
    # Before numpydoc, which looks at the docstring with priority 500.
    app.connect("autodoc-process-docstring", formulas_as_code, priority=100)
