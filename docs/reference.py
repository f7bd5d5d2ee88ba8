"""Pages of the site that are made of the code: every public name, every command with its options."""

from pathlib import Path

import typer
from click import Parameter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import hf_midrange as hm
from hf_midrange.commands.app import app


STEPS = {
    "The steps": ["extract", "LogitBands", "annotate", "associate", "curate", "retrain_head", "debias"],
    "Results": ["curation_report", "findings_schema", "group_metrics", "report", "explore", "check"],
    "The Trainer": ["MidRangeTrainer", "MidRangeArguments", "MidRangeCallback"],
    "Several labels, or a number": ["one_label", "signed_error", "repair_regression", "group_errors"],
    "Sharing": ["publish_dataset", "publish_model", "publish_head", "apply_head"],
}


def python_page(names: list[str] = hm.__all__) -> str:
    """Return a page with the docstring of every public name: the steps first, the others by the alphabet."""
    listed = [name for group in STEPS.values() for name in group]
    groups = STEPS | {"Sources and the rest": [name for name in names if name not in listed]}
    parts = ["# Python", "", "Everything here is an attribute of `hf_midrange`, imported as `hm`."]
    for title, members in groups.items():
        parts += ["", f"# {title}"]
        for name in members:
            home = getattr(hm, name).__module__
            parts += ["", f"::: {home}.{name}", "    options: {heading_level: 2, show_root_full_path: false}"]
    return "\n".join(parts)


def commands_page() -> str:
    """Return a page with the help of every command, options and their defaults in a table."""
    group = typer.main.get_command(app)
    parts = ["# Commands", "", "Flags may stand in a file as well: `--config file.yaml`; flags that are typed win."]
    for name, command in group.commands.items():
        given = [part for part in command.params if part.param_type_name == "argument"]
        words = [f"hf-midrange {name}", *((part.metavar or part.name or "").upper() for part in given)]
        parts += ["", f"## {name}", "", command.help or "", "", f"`{' '.join(words)} [OPTIONS]`", ""]
        parts += ["| option | default | |", "|---|---|---|"]
        parts += [_row(option) for option in command.params if option.param_type_name == "option"]
    return "\n".join(parts)


def _row(option: Parameter) -> str:
    flags = " ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
    default = "" if option.default is None or option.is_flag or callable(option.default) else f"`{option.default}`"
    return f"| {flags} | {default} | {(option.help or '').replace('|', ' or ')} |"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, make in {"reference/python.md": python_page, "reference/commands.md": commands_page}.items():
        files.append(File.generated(config, path, content=make()))
    picture = Path(__file__).parents[1] / "model_cards" / "digit_dominoes.png"
    files.append(File.generated(config, "pictures/digit_dominoes.png", abs_src_path=str(picture)))
    return files
