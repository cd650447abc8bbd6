"""Whether released records are of the pictures at hand, which nothing but their numbers say."""

from collections.abc import Sequence

import numpy as np

from regraft.errors import SampleError
from regraft.vision.data import ImageSet
from regraft.vision.headers import Headers
from regraft.vision.released_folder import ReleasedFolder

NUM_NAMED = 3


def check_count(released: ReleasedFolder, samples: ImageSet) -> None:
    """Refuse pictures that are not as many as those recorded: all numbers after the odd one would be wrong.

    Raises:
        SampleError: There are more, or fewer.
    """
    if released.num_pictures != len(samples):
        raise SampleError(
            f"{released.folder} has records of {released.num_pictures} pictures, and there are "
            f"{len(samples)}; expected as many, because records go by the number of a picture in its folder.",
            hint="Give the very folder that was recorded, with every picture. Hidden ones had numbers, too.",
        )


def read_otherwise(samples: ImageSet, headers: Headers, largest_share: float) -> Sequence[str]:
    """Ids of pictures that the teacher saw in another way than we show them.

    Torchvision does not heed EXIF orientation, cuts grey values of 16 bits off, and drops what is transparent
    where we lay it on white.

    Raises:
        SampleError: They are more than `largest_share` of all.
    """
    odd = np.flatnonzero((headers.orientations != 1) | ~headers.plain)
    names = [samples.ids[index] for index in odd]
    if len(names) > largest_share * len(samples):
        raise SampleError(
            f"{len(names)} of {len(samples)} pictures are turned by EXIF, transparent or of 16 bits, such as "
            f"{', '.join(names[:NUM_NAMED])}. The teacher saw them as they are stored; students see them "
            f"upright and on white. Expected at most {largest_share:.1%} of such pictures.",
            hint="Raise the share to learn from their answers all the same.",
        )
    return names
