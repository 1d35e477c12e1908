# %% [markdown]
# # Every goal, and the smallest change
#
# An attacker may want something else than a wrong label: the right label under another map. And whatever the goal,
# one ε says only yes or no; the smallest change that reaches the goal says how near the photo was.

# %%
import torch

import underfire as uf
from underfire.images import builtin_photos, load_photo

clf = uf.load_classifier("efficientnet-lite0")
photos = builtin_photos().photos[:2]
x = torch.stack([load_photo(p.path, clf.preprocessing).pixels for p in photos]).float() / 255
label = torch.tensor([p.label for p in photos])
cam = uf.CAM(clf)

# %% [markdown]
# ## The label stays, the map moves
#
# `kept/topk`: the fifth of the map's cells that count most shall be another one, while the prediction and its
# probability stay (Ghorbani et al. 2019).

# %%
moved = uf.MapAttack(cam, goal="topk", eps=8 / 255, passes=30)(x, label)
moved

# %% [markdown]
# `met(tau)` says on which photos both halves of the goal are met: the label is kept, and the top fifths of both maps
# overlap by at most τ. The mean over photos is the joint success rate, JSR@τ.

# %%
{tau: moved.met(tau).tolist() for tau in (0.5, 0.25, 0.1)}

# %% [markdown]
# ## The smallest change
#
# For each photo by itself the smallest ε, in whole grey levels, at which the label is the target class *and* the map
# is kept. 60 passes are few: with more the changes get smaller, never larger.

# %%
target = (label + 1) % clf.num_classes
nearest = uf.MinimumNorm(cam, norm="linf", iou=0.5, passes=60)(x, target)
(255 * nearest.eps).tolist()

# %%
nearest.plot()

# %% [markdown]
# ## Random points are too kind
#
# Published measures of robustness look at a few random points around a photo. An attacker doesn't choose at random.
# Both figures are of the same ball, by the same formula.

# %%
uf.sensitivity(cam, x, label, radius=0.02, passes=30)
