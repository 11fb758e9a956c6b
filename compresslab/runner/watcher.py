"""What a caller may want to hear while a study runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compresslab.runner.processes import Listener

if TYPE_CHECKING:
    from compresslab.plan.graph import Node, Plan
    from compresslab.store.store import Store


class Watcher:
    """Hears what becomes of a study. The default ignores it all."""

    def planned(self, plan: Plan, store: Store) -> None:
        """The nodes of a study are about to run."""

    def starting(self, node: Node, estimated: float | None) -> Listener:
        """A node starts; the listener given back hears its progress.

        Args:
            estimated: seconds that the node is expected to take, where that is known.
        """
        del node, estimated
        return Listener()

    def ended(self, node: Node, seconds: float, failure: str) -> None:
        """A node ended; `failure` is empty if it finished."""

    def lost(self, node: Node, cause: str) -> None:
        """A node is not run, because one that it needs failed, or because the store cannot be read or written."""

    def waiting(self, node: Node, why: str) -> None:
        """Nothing can be made before another run has ended what it does; called again and again."""

    def found(self, node: Node) -> None:
        """Another run has made a node that was to be made here."""

    def again(self, node: Node, why: str) -> None:
        """A node is to be made once more, because its result is damaged or may not be kept."""

    def assessing(self, plan: Plan) -> None:
        """The nodes have run; densities, verdicts and the page are computed now."""
