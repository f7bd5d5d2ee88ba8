"""Licences as the Hub names them."""

from __future__ import annotations

import re


KNOWN = frozenset(
    "afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsl-1.0 c-uda cc "
    "cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 "
    "cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 "
    "etalab-2.0 eupl-1.1 eupl-1.2 gemma gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 llama2 llama3 "
    "llama3.1 llama3.2 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 other pddl "
    "postgresql unknown unlicense wtfpl zlib".split()
)


def of_metadata(licence: str | None) -> dict[str, str]:
    """Return the metadata of a licence: the Hub refuses a `license` it does not know, so others go by `license_name`.

    >>> of_metadata("CC-BY-4.0"), of_metadata("ask us")
    ({'license': 'cc-by-4.0'}, {'license': 'other', 'license_name': 'ask-us'})
    """
    if not licence:
        return {}
    plain = licence.strip().lower()
    if plain in KNOWN:
        return {"license": plain}
    name = re.sub(r"[^a-z0-9._-]+", "-", plain).strip("-")[:64]
    return {"license": "other", **({"license_name": name} if name else {})}
