# %% [markdown]
# # An audit from Python
#
# An audit attacks every photo with PGD and with ADV² on each interpreter, saves each image with 8 bits, scores what
# it reads back, and says with intervals how far each explanation can be trusted. Two photos and 20 passes are far too
# few to conclude anything; they are enough to see what comes out.

# %%
import underfire as uf

clf = uf.load_classifier("efficientnet-lite0")

# %% [markdown]
# Without photos an audit takes those that come with the package. In a notebook a bar shows how far it is. If you
# interrupt it, the same call goes on.

# %%
run = uf.audit(clf, interpreters=["cam"], out="my-run", passes=20, limit=2)

# %% [markdown]
# ## The run shows itself
#
# With two photos the interval of "2 of 2" begins at 34 %: the true share may be as low as that.

# %%
run

# %% [markdown]
# ## Rows
#
# One row for each photo, attack and map, as a `pyarrow.Table` that every table library reads.

# %%
columns = ["image_id", "attack", "success_8bit", "l1_8bit", "iou_50_8bit", "passes"]
for row in run.rows.select(columns).to_pylist():
    print(*(f"{v:.3f}" if isinstance(v, float) else v for v in row.values()), sep="  ")

# %% [markdown]
# ## A gate, and the report
#
# A gate turns figures into a verdict, for use in CI. The report is one HTML file that asks for no network.

# %%
for sentence in run.failures(["kept>0.1"], min_photos=2):
    print(sentence)
run.report().name
