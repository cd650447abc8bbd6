"""Tables of the reinforcements that were published with Dataset Reinforcement (arXiv 2303.08983).

ImageNet+ and its kin are folders of pickles, one a picture, with what was drawn for each view and what an
ensemble of teachers said of it. Here they become a table with explicit parameters, on which students train as
on one that was recorded here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from regraft.errors import RecipeError
from regraft.tables.record import Recorder
from regraft.tables.table import Table
from regraft.vision.crops import Flip, PadCrop, RandomResizedCrop
from regraft.vision.erasing import RandomErase
from regraft.vision.headers import read_headers
from regraft.vision.mixing import Mix
from regraft.vision.rand_augment import RandAugment
from regraft.vision.reinforce import filled, origin_of
from regraft.vision.released_blocks import ReleasedBlocks
from regraft.vision.released_checks import check_count, read_otherwise
from regraft.vision.released_config import Pipeline
from regraft.vision.released_folder import ReleasedFolder, folder_order
from regraft.vision.views import Views
from regraft.vision.workers import in_processes

IMPORTED = "imported"
"""In the place of a teacher's fingerprint."""
READ_OTHERWISE = "read_otherwise"
"""Where a table's origin names the pictures that the teacher saw in another way than they are shown."""

_KINDS = {
    "random_crop": PadCrop,
    "random_resized_crop": RandomResizedCrop,
    "random_horizontal_flip": Flip,
    "rand_augment": RandAugment,
    "random_erase": RandomErase,
    "mixup": Mix,
    "cutmix": Mix,
}


def import_released(
    released: ReleasedFolder,
    out: Path,
    views: Views,
    *,
    notes: Mapping[str, object] | None = None,
    largest_odd_share: float = 0.001,
    workers: int = 0,
    watch: Callable[[int, int], None] = lambda num_done, num_total: None,
) -> Table:
    """Make a table of released records, or go on with that.

    Pixels become shares of the pictures, by the sizes that their headers tell, in such a way that the very
    pixels come back. What the teachers said is kept in 8 bits a class.

    Args:
        released: The records.
        out: The table's folder.
        views: Of the very folder of pictures that was recorded, of the size and with the steps of the
            records: cut bilinearly, turned to the nearest pixel. The seed is that of fresh views alone.
        notes: What else to keep in the table's origin, as JSON values by name.
        largest_odd_share: Largest share of pictures that the teacher saw in another way than they are shown,
            such as those that EXIF turns. Their boxes are turned with them, and the origin names them.
        workers: Processes that read; 0 reads here.
        watch: Told how many views are done, of how many.

    Raises:
        SampleError: The pictures are others than those recorded, or too many are shown in another way.
        RecipeError: The views are others than those recorded.
        TableError: A file is damaged or asks for anything to be run, or `out` holds another table.
    """
    samples = views.samples
    _check_fits(released.pipeline, views)
    check_count(released, samples)
    order = folder_order(samples)
    headers = read_headers([Path(str(source)) for source in samples.sources], workers=workers)
    blocks = ReleasedBlocks(released, views, order, headers)
    origin = origin_of(views, IMPORTED) | {
        "released": released.config,
        READ_OTHERWISE: read_otherwise(samples, headers, largest_odd_share),
        **(notes or {}),
    }
    ids = [samples.ids[index] for index in views.order]
    num_draws = released.num_draws
    recorder = Recorder(out, ids=ids, num_draws=num_draws, columns=blocks.columns, origin=origin)
    return filled(
        recorder,
        blocks.rows_per_block,
        lambda first: in_processes(blocks, range(first, len(blocks)), workers),
        len(ids) * num_draws,
        watch,
    )


def _check_fits(pipeline: Pipeline, views: Views) -> None:
    """Refuse views that have no place for what was drawn, or a place for more."""
    variation, size_px = views.variation, views.preprocess.size_px
    parts = (variation.crop, *variation.steps.steps, variation.mix)
    kinds = [type(part) for part in parts if part is not None]
    # Both ways of mixing are one part.
    wanted = list(dict.fromkeys(_KINDS[stage] for stage in pipeline.stages if stage in _KINDS))
    if kinds != wanted or size_px != pipeline.size_px:
        raise RecipeError(
            f"Views of {size_px} px have {', '.join(kind.__name__ for kind in kinds)}; expected "
            f"{pipeline.size_px} px and {', '.join(kind.__name__ for kind in wanted)}, as the records.",
            hint="recipes.released.import_released makes views that fit.",
        )
