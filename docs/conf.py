"""The documentation: `sphinx-build -W docs docs/_build` writes it as HTML. The gallery's scripts are run."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from sphinx_gallery.sorting import FileNameSortKey

import keras_effnet

project = "keras_effnet"
author = "The keras_effnet authors"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx reads this name
version = release = keras_effnet.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery", "networks_measured.md"]
suppress_warnings = ["config.cache"]  # FileNameSortKey is a class, and Sphinx warns that it cannot cache it
default_role = "code"
nitpicky = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # the signature shows the types' names; the docstring gives shapes, dtypes and units
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
copybutton_prompt_text = ">>> "

html_theme = "pydata_sphinx_theme"
html_title = "keras_effnet"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": True,
    "header_links_before_dropdown": 7,
    "footer_start": ["copyright"],
    "footer_end": [],
    "navbar_end": ["theme-switcher"],
}
html_sidebars = {"index": []}

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"\d\d_",
    "within_subsection_order": FileNameSortKey,
    "remove_config_comments": True,
    "show_memory": False,
    "min_reported_time": 20,
    "abort_on_example_error": True,
    "download_all_examples": False,
    "plot_gallery": "True",
    "image_scrapers": ("matplotlib",),
    "reset_modules": ("matplotlib",),
    "backreferences_dir": None,
}
