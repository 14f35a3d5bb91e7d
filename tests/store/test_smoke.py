from tests.support.flows import chain
from tests.support.stage import Stage

async def test_smoke(stage: Stage):
    await stage.begin_run(chain("a","b","c"))
    assert await stage.work() == 3
    assert await stage.status() == "completed"

async def test_open(stage: Stage):
    await stage.begin_run(chain("a","b","c"))

async def test_unpinned(stage: Stage):
    await stage.start("nobody")
