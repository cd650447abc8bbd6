"""The middle of `regraft demo`: how strongly to vary the data is learned, and a teacher stored with it."""

from dataclasses import replace

from regraft.recipes.demo_steps import Earlier, trained
from regraft.recipes.parts import load_parts
from regraft.recipes.policies import with_policy
from regraft.recipes.preprocessing import preprocessing_of
from regraft.recipes.recipe import Imitation, Ranges, Recipe
from regraft.recipes.reinforcement import SETTINGS, settings_of, views_of
from regraft.recipes.small import fastvit_mini, mobileone_mini
from regraft.recipes.story import Follower, Result, Step, Story
from regraft.recipes.teachers import load_teachers
from regraft.vision.batches import OrderedBatches
from regraft.vision.data import ImageSet
from regraft.vision.metrics import num_correct
from regraft.vision.preprocess import Preprocess
from regraft.vision.reinforce import record
from regraft.vision.teachers import Teacher

TARGET_DB = 25.0
DRAWS, TOP_K = 20, 5


def vary(story: Story, earlier: Earlier, follower: Follower) -> Result:
    """Train the small MobileOne again, and learn meanwhile how strongly to vary its pictures."""
    recipe = replace(mobileone_mini(), ranges=Ranges(target_db=TARGET_DB))
    result = trained(story, recipe, story.varied_run, follower)
    bought = result.facts["top1"] - earlier["grow"].facts["top1"]
    return Result(f"{result.headline}, {100 * bought:+.1f} points", {**result.facts, "target_db": TARGET_DB})


def reinforce(story: Story, earlier: Earlier, follower: Follower) -> Result:
    """Store what both small networks together say of many views of every training picture."""
    parts = load_parts(story.parts)
    recipe = reinforced_recipe(story)
    names = [str(run / "model.safetensors") for run in (story.run, story.varied_run)]
    teacher = load_teachers(names, parts.train.classes)
    # Networks that are trained anew get a table of their own.
    table = record(
        story.tables / teacher.fingerprint[:8],
        views_of(recipe, parts.train, seed=recipe.seed),
        teacher,
        num_draws=DRAWS,
        top_k=TOP_K,
        notes={SETTINGS: settings_of(recipe)},
        watch=follower.advance,
    )
    top1 = _share_right(teacher, parts.unseen, preprocessing_of(recipe))
    num_bytes = sum(file.stat().st_size for file in table.folder.iterdir())
    facts = {
        "num_views": table.num_rows,
        "num_draws": DRAWS,
        "num_bytes": num_bytes,
        "bytes_a_view": num_bytes / table.num_rows,
        "path": str(table.folder),
        "fingerprint": table.fingerprint,
        "top1": top1,
    }
    headline = (
        f"{table.num_rows:,} views of {len(parts.train):,} pictures in {num_bytes / 1e6:.1f} MB; "
        f"the teacher names {100 * top1:.1f} % of the unseen ones right"
    )
    return Result(headline, facts)


def _share_right(teacher: Teacher, samples: ImageSet, preprocess: Preprocess) -> float:
    batches = OrderedBatches(samples, preprocess)
    answers = ((teacher(preprocess.pixels_of(batch["image"])), batch["label"]) for batch in batches)
    return sum(num_correct(told.cpu(), label) for told, label in answers) / len(samples)


def compare(story: Story, earlier: Earlier, follower: Follower) -> Result:
    """Train the small FastViT on labels alone, to see what the teacher is worth."""
    return trained(story, second_recipe(), story.plain_run, follower)


def second_recipe() -> Recipe:
    """The recipe of the small FastViT, half as long as that of the small MobileOne: it is trained twice."""
    recipe = fastvit_mini()
    schedule = replace(recipe.schedule, steps=300, warmup_steps=30, evaluate_every=50, checkpoint_every=50)
    # A small gallery of letters or digits is not to be mirrored; neither does the first network's recipe.
    augment = replace(recipe.augment, flip=False)
    return replace(recipe, schedule=schedule, batch_size=64, average_decay=0.99, augment=augment)


def reinforced_recipe(story: Story) -> Recipe:
    """The same, its pictures varied as was learned, half of its loss the teacher's.

    The teacher is no larger than the student and saw the same pictures, so labels know what it does not.
    """
    recipe = replace(second_recipe(), imitation=Imitation(label_weight=0.5))
    return with_policy(recipe, story.varied_run / "policy.json")


STEPS = (
    Step("vary", "learning how strongly to vary pictures", vary),
    Step("reinforce", "storing what the networks say of many views", reinforce),
    Step("compare", "training a second network, a small FastViT, on labels alone", compare),
)
