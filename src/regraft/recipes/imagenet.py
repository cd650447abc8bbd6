"""ImageNet as the papers train it. None of these has been run by this project: no one here has the pictures.

Each was assembled from the papers and from what independent reproductions state. Steps count the
1,281,167 training pictures of ILSVRC 2012.
"""

from regraft.recipes.recipe import Augmentation, Recipe
from regraft.train.schedule import Schedule

NUM_PICTURES = 1_281_167


def _steps(epochs: int, batch_size: int) -> int:
    return epochs * (NUM_PICTURES // batch_size)


def mobileone(variant: str) -> Recipe:
    """MobileOne (arXiv 2206.04040, section 4): SGD, and weight decay that falls with the learning rate.

    Command: `regraft train IMAGENET --recipe imagenet_mobileone_s1 --out RUN`, under `torchrun` on 8 GPUs.
    Not run here. S0 and S1 are only cropped and mirrored. For S2 to S4 the paper strengthens AutoAugment
    over the epochs; here its strength is constant from the first epoch on, and only the size of the
    pictures grows.
    """
    batch_size = 256
    is_large = variant in ("s2", "s3", "s4")
    return Recipe(
        model=f"mobileone_{variant}",
        schedule=Schedule(
            steps=_steps(300, batch_size),
            peak_lr=0.1,
            weight_decay=1e-4,
            final_weight_decay=1e-5,
            clip_norm=None,
            evaluate_every=_steps(1, batch_size),
            checkpoint_every=1000,
        ),
        size_px=224,
        sizes=((0, 160), (37, 192), (112, 224)) if is_large else (),
        crop=0.875 if variant == "s0" else 0.9,
        batch_size=batch_size,
        optimizer="sgd",
        label_smoothing=0.1,
        average_decay=0.9995,
        augment=Augmentation(crop_area=(0.08, 1.0), flip=True, auto_augment=is_large),
    )


DROP_PATH = {"t8": 0.0, "t12": 0.0, "s12": 0.0, "sa12": 0.1, "sa24": 0.1, "sa36": 0.2, "ma36": 0.35}
"""FastViT's stochastic depth, trained without a teacher."""


def fastvit(variant: str) -> Recipe:
    """FastViT (arXiv 2303.14189, appendix): AdamW, 300 epochs at 256 pixels, without a teacher.

    Command: `regraft train IMAGENET --recipe imagenet_fastvit_t8 --out RUN`, under `torchrun` on 8 GPUs.
    Not run here. RandAugment is torchvision's, at a constant magnitude; the reference draws the
    magnitude around 9 and uses variants of operations that only grow stronger with it.
    """
    batch_size = 1024
    return Recipe(
        model=f"fastvit_{variant}",
        schedule=Schedule(
            steps=_steps(300, batch_size),
            peak_lr=1e-3,
            final_lr=1e-5,
            warmup_steps=_steps(5, batch_size),
            warmup_lr=1e-6,
            weight_decay=0.05,
            clip_norm=None,
            evaluate_every=_steps(1, batch_size),
            checkpoint_every=1000,
        ),
        size_px=256,
        crop=0.95 if variant == "ma36" else 0.9,
        interpolation="bicubic",
        batch_size=batch_size,
        optimizer="adamw",
        label_smoothing=0.1,
        drop_path=DROP_PATH[variant],
        average_decay=0.9995,
        precision="bf16-mixed",
        augment=Augmentation(
            crop_area=(0.08, 1.0),
            flip=True,
            rand_augment=9,
            jitter=0.4,
            erase=0.25,
            mixup=0.8 if variant == "ma36" else 0.2,
            cutmix=1.0,
        ),
    )
