"""README as package indexes show it: no file lies beside it there, so that its links to files lead nowhere.

Once ``Source`` in ``[project.urls]`` says where the repository is, they lead to its files, at the tag of the version.
Without an address they stay as they are, and work in a checkout only.
"""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

TO_A_FILE = re.compile(r"(!?)(\[[^\]]*\]\()(?!https?:|#)")


class Readme(MetadataHookInterface):
    """What pyproject.toml names as a hook of hatchling."""

    def update(self, metadata):
        """Set the long description."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        if address := metadata.get("urls", {}).get("Source"):
            text = TO_A_FILE.sub(
                lambda found: f"{found[0]}{address}/{'raw' if found[1] else 'blob'}/v{metadata['version']}/", text
            )
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
