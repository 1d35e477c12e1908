# %% [markdown]
# # A map under attack
#
# One photo, two attacks. PGD changes the label and leaves the map to chance. ADV² changes the label and keeps the
# map, so that somebody who looks at it notices nothing. Everything here comes with the package: the classifier
# (EfficientNet-Lite0 on ImageNet) and the photo.

# %%
import torch

import underfire as uf
from underfire.images import builtin_photos, load_photo

clf = uf.load_classifier("efficientnet-lite0")
photo = builtin_photos().photos[0]
x = load_photo(photo.path, clf.preprocessing).pixels[None].float() / 255
label = torch.tensor([photo.label])
clf.class_names[photo.label], round(clf.probabilities(x)[0, photo.label].item(), 3)

# %% [markdown]
# ## The benign map
#
# CAM says how much each of 7 × 7 cells counts for a class, from 0 to 1.

# %%
cam = uf.CAM(clf)
benign = cam(x, label)
benign.shape, benign[0].argmax().item()

# %% [markdown]
# ## PGD: the label alone
#
# Each pixel value may change by at most 8 of 255, and the attack may run the model 20 times. A result shows itself: a
# row of figures, and the image before, after, and the change, enlarged around grey.

# %%
target = torch.tensor([clf.class_names.index("espresso")])
pgd = uf.PGD(clf, eps=8 / 255, passes=20)(x, target)
pgd

# %% [markdown]
# ## ADV²: the label and the map
#
# The last two pictures are the map that the attack was asked to show, here the benign one, and the map that the image
# shows for the class *espresso*.

# %%
adv2 = uf.ADV2(cam, eps=8 / 255, passes=30)(x, target, target_map=benign)
adv2

# %% [markdown]
# ## How well was the map kept?
#
# The overlap (IoU) of both maps, cut at 0.5: 1 is the same region, 0 another one.

# %%
for name, maps in {"PGD": cam(pgd.x_adv, target), "ADV²": adv2.maps["cam"]}.items():
    print(
        f"{name}: IoU {uf.metrics.iou(maps, benign).item():.2f}, mean change {uf.metrics.l1(maps, benign).item():.3f}"
    )

# %% [markdown]
# A map that looks right is no evidence that the label is. Whether that holds for your model and interpreter, and on
# how many photos, is what an audit counts.
