"""The meeting of the processes that torchrun starts, and starts again after a failure, in the store of its agent.

The store outlives the processes, and keeps the addresses of those that ended: each start needs keys of its own, which
all of its processes must know. Their counts of starts can differ, as one may be killed before it counts.
"""

import os
import time
import uuid

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # public by the documentation

RUN_KEY = "maml/run"
"""Key of the run directory, for processes that are started again."""
SECONDS_BETWEEN_LOOKS = 0.01


def open_store(rank: int) -> Store:
    """The store at MASTER_ADDR and MASTER_PORT: that of torchrun's agent, or else one that process 0 serves."""
    is_agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(*address, is_master=rank == 0 and not is_agents)


def store_of_this_start(store: Store, rank: int, size: int) -> Store:
    """`store` with keys that earlier processes have not used; returns in all processes of this start, or in none.

    Every process leaves a new name under its rank, and process 0 answers to each name with that of the start. It goes
    on until all have confirmed: a name may be that of a process which has ended.
    """
    own = uuid.uuid4().hex
    store.set(f"maml/name/{rank}", own)
    if rank:
        start = store.get(f"maml/start/{own}").decode()
        store.set(f"maml/confirmed/{start}/{rank}", "")
        return PrefixStore(f"maml/{start}", store)
    missing = set(range(1, size))
    while missing:
        for other in [other for other in missing if store.check([f"maml/name/{other}"])]:
            store.set(f"maml/start/{store.get(f'maml/name/{other}').decode()}", own)
        missing -= {other for other in missing if store.check([f"maml/confirmed/{own}/{other}"])}
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return PrefixStore(f"maml/{own}", store)
