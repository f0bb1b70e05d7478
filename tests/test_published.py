"""The published numbers: counts, sums and spot values worked out from the paper and the README, not from the file."""

import pytest

from fima.report.results import published
from helpers import SAME_RUNS

COLUMNS = [
    "table",
    "row",
    "method",
    "backbone",
    "pretrain",
    "frames",
    "resolution",
    "column",
    "value",
    "unit",
    "source",
    "remark",
]

# table: number of values and their sum, added up from the paper's text; a dash in the paper is no value
TOTALS = {
    "table_01": (20, 1204.1),
    "table_02": (10, 760.9),
    "table_03a": (8, 615.5),
    "table_03b": (6, 463.8),
    "table_03c": (8, 616.2),
    "table_03d": (12, 747.3),
    "table_03e": (6, 463.7),
    "table_03f": (8, 617.1),
    "table_04": (76, 4659.2),
    "table_05": (4, 232.9),
    "table_06": (64, 3346.4),
    "table_07": (4, 314.3),
    "table_08": (4, 180.2),
    "table_09": (3, 219.9),
    "table_10": (4, 284.7),
    "table_11": (12, 348.28),
    "readme": (8, 470.4),
}
# per column, added up the other way, so that two numbers that changed places are seen
COLUMN_SUMS = {
    "table_01": {"UCF101 linear": 344.9, "HMDB51 linear": 184.9, "UCF101 finetune": 406.1, "HMDB51 finetune": 268.2},
    "table_02": {"UCF101 finetune": 407.2, "UCF101 linear": 353.7},
    "table_03a": {"UCF101 finetune": 329.7, "UCF101 linear": 285.8},
    "table_03b": {"UCF101 finetune": 247.6, "UCF101 linear": 216.2},
    "table_03c": {"UCF101 finetune": 328.8, "UCF101 linear": 287.4},
    "table_03d": {"UCF101 finetune": 247.2, "UCF101 linear": 216.2, "HMDB51 finetune": 164.5, "HMDB51 linear": 119.4},
    "table_03e": {"UCF101 finetune": 247.4, "UCF101 linear": 216.3},
    "table_03f": {"UCF101 finetune": 329.1, "UCF101 linear": 288.0},
    "table_04": {"UCF101 linear": 1020.8, "HMDB51 linear": 610.1, "UCF101 finetune": 1862.2, "HMDB51 finetune": 1166.1},
    "table_06": {
        "UCF101 R@1": 337.9,
        "UCF101 R@5": 469.6,
        "UCF101 R@10": 540.1,
        "UCF101 R@20": 608.7,
        "HMDB51 R@1": 149.2,
        "HMDB51 R@5": 315.0,
        "HMDB51 R@10": 409.3,
        "HMDB51 R@20": 516.6,
    },
    "table_07": {"UCF101 finetune": 166.7, "UCF101 linear": 147.6},
    "table_08": {"parameters": 30.9, "UCF101 linear": 149.3},
    "table_11": {"parameters": 51.3, "GPU-days": 14.28, "UCF101 linear": 282.7},
    "readme": {"UCF101 linear": 133.4, "HMDB51 linear": 69.5, "UCF101 finetune": 160.9, "HMDB51 finetune": 106.6},
}
SPOTS = [
    ("table_01", "vv_pix", "HMDB51 linear", 39.2),
    ("table_01", "fima", "HMDB51 finetune", 57.8),
    ("table_02", "dc", "UCF101 finetune", 79.7),
    ("table_03a", "threshold_1_4", "UCF101 finetune", 83.4),
    ("table_03b", "blocks_3", "UCF101 linear", 71.9),
    ("table_03c", "width_256_heads_4", "UCF101 linear", 73.3),
    ("table_03d", "ratio_0_3", "HMDB51 finetune", 56.0),
    ("table_03e", "difference", "UCF101 linear", 71.1),
    ("table_03f", "target", "UCF101 linear", 72.2),
    ("table_04", "memdpc_r3d34_k400", "UCF101 finetune", 78.1),
    ("table_04", "fima_r2plus1d_ucf101", "HMDB51 finetune", 56.0),
    ("table_04", "dclr_r2plus1d_k400", "HMDB51 linear", 46.4),
    ("table_05", "tclr_r3d18_k400", "Diving48 finetune", 22.9),
    ("table_05", "fima_r2plus1d_k400", "Diving48 finetune", 74.7),
    ("table_06", "fima_r2plus1d_ucf101", "UCF101 R@10", 77.0),
    ("table_06", "cacl_r2plus1d_ucf101", "HMDB51 R@20", 63.4),
    ("table_07", "width_256", "UCF101 linear", 72.3),
    ("table_08", "different", "parameters", 16.5),
    ("table_09", "triplet", "UCF101 linear", 73.4),
    ("table_10", "negatives_1568", "UCF101 linear", 72.6),
    ("table_11", "dc_fs", "GPU-days", 3.54),
    ("table_11", "dc_fs_md", "parameters", 14.4),
    ("readme", "vv", "HMDB51 linear", 26.7),
]
# doubtful rows of comparators.md, point by point: table, row, column ("" for every column of the row), what the remark
# must name
DOUBTFUL = [
    ("table_04", "vcp_r3d18_ucf101", "", "R(2+1)D"),
    ("table_04", "dsm_i3d_k400", "", "UCF101"),
    ("table_04", "be_i3d_ucf101", "", "64 frames"),
    ("table_04", "be_i3d_k400", "", "64 frames"),
    *[
        ("table_04", f"{row}_r2plus1d_{data}", "", "depth")
        for row, data in (
            ("prp", "ucf101"),
            ("dclr", "ucf101"),
            ("sdc", "ucf101"),
            ("rspnet", "k400"),
            ("videomoco", "k400"),
            ("tclr", "k400"),
            ("dclr", "k400"),
            ("fame", "k400"),
            ("sdc", "k400"),
        )
    ],
    *[("table_06", f"{row}_r2plus1d_ucf101", "", "depth") for row in ("pace", "cacl", "dclr")],
    *[
        ("table_04", row, "", "best on the test split")
        for row in (
            "fima_r2plus1d_ucf101",
            "fima_i3d_ucf101",
            "fima_r2plus1d_k400",
            "fima_i3d_k400",
            "fame_i3d_ucf101",
            "fame_i3d_k400",
            "fame_r2plus1d_k400",
            "tclr_r2plus1d_k400",
        )
    ],
    *[
        ("table_04", f"fame_i3d_{data}", f"{test} linear", "dagger")
        for data in ("ucf101", "k400")
        for test in ("UCF101", "HMDB51")
    ],
    ("table_06", "fame_i3d_ucf101", "", "dagger"),
    ("table_08", "shared", "parameters", "4.2 million"),
    ("table_08", "different", "parameters", "4.2 million"),
    ("table_11", "dc_fs_md", "parameters", "4.2 million"),
    ("table_09", "triplet", "", "margin"),
    ("table_09", "mse", "", "released code"),
]


def value(table, row, column):
    "Look one number up."
    found = published(table).query("row == @row and column == @column").value
    assert len(found) == 1, (table, row, column)
    return found.iloc[0]


@pytest.mark.parametrize("table", TOTALS)
def test_totals_are_the_papers(table):
    values = published(table).value
    assert (len(values), round(values.sum(), 2)) == TOTALS[table]


@pytest.mark.parametrize("table", COLUMN_SUMS)
def test_columns_are_the_papers(table):
    assert published(table).groupby("column").value.sum().round(2).to_dict() == COLUMN_SUMS[table]


def test_spot_values():
    assert [(table, row, column, value(table, row, column)) for table, row, column, _ in SPOTS] == SPOTS


def test_the_file_is_tidy():
    whole = published()
    assert whole.columns.tolist() == COLUMNS
    assert set(whole.table) == set(TOTALS)
    assert len(whole) == sum(count for count, _ in TOTALS.values())
    assert not whole.duplicated(["table", "row", "column"]).any()
    assert whole.value.notna().all()
    assert (whole.source != "").all()
    assert whole.row.str.fullmatch(r"[a-z0-9_]+").all()
    units = whole.column.map({"parameters": "million parameters", "GPU-days": "GPU-days"}).fillna("per cent")
    assert (whole.unit == units).all()
    assert whole.value[whole.unit == "per cent"].between(0, 100, inclusive="neither").all()
    methods = whole[whole.table.isin(["table_04", "table_05", "table_06"])]
    assert (methods[["method", "backbone", "pretrain"]] != "").all(axis=None)
    assert methods.row.str.startswith(tuple(methods.method.str.lower().unique())).all()


def test_what_one_paper_prints_twice_agrees():
    "The README repeats Table 1, Table 4 its last row; the default of every ablation is one row."
    for row in ("vv", "fima"):
        for column in COLUMN_SUMS["readme"]:
            assert value("readme", row, column) == value("table_01", row, column)
    for column in COLUMN_SUMS["table_01"]:
        assert value("table_04", "fima_i3d_ucf101", column) == value("table_01", "fima", column)
    for first, others in SAME_RUNS.items():
        for table, row in others:
            assert value(table, row, "UCF101 linear") == value(*first, "UCF101 linear"), (table, row)


@pytest.mark.parametrize("table, row, column, named", DOUBTFUL, ids=lambda value: str(value).replace(" ", "_"))
def test_doubtful_rows_carry_their_remark(table, row, column, named):
    rows = published(table).query("row == @row")
    if column:
        rows = rows[rows.column == column]
    assert len(rows) and rows.remark.str.contains(named, regex=False).all()


def test_a_dagger_is_on_no_other_number():
    marked = published()[lambda t: t.remark.str.contains("dagger")]
    assert len(marked) == 4 + 8 and set(marked.method) == {"FAME"}


@pytest.mark.parametrize(
    "table, column, better, worse",
    [  # what sections 4.2, 4.3 and B say in words
        *[
            ("table_01", column, better, worse)
            for column in COLUMN_SUMS["table_01"]
            for better, worse in (
                ("vv_vd", "vv"),
                ("vv_pix", "vv"),
                ("vv_pix", "vv_vd"),
                ("vv_fra", "vv"),
                ("fima", "vv_pix"),
                ("fima", "vv_fra"),
            )
        ],
        ("table_02", "UCF101 finetune", "vd", "dc"),
        *[
            ("table_02", column, "dc_fs_md", worse)
            for column in COLUMN_SUMS["table_02"]
            for worse in ("vd", "dc", "dc_fs", "dc_md")
        ],
        *[("table_02", column, better, "dc") for column in COLUMN_SUMS["table_02"] for better in ("dc_fs", "dc_md")],
        *[
            ("table_03b", column, "blocks_2", worse)
            for column in COLUMN_SUMS["table_03b"]
            for worse in ("blocks_1", "blocks_3")
        ],
        *[
            ("table_03c", column, f"width_{width}_heads_4", f"width_{width}_heads_8")
            for column in COLUMN_SUMS["table_03c"]
            for width in (256, 512)
        ],
        *[
            ("table_03d", f"UCF101 {how}", "ratio_0_5", worse)
            for how in ("finetune", "linear")
            for worse in ("ratio_0_3", "ratio_0_7")
        ],
        *[
            ("table_03d", f"HMDB51 {how}", "ratio_0_3", worse)
            for how in ("finetune", "linear")
            for worse in ("ratio_0_5", "ratio_0_7")
        ],
        *[
            ("table_03e", column, "both", worse)
            for column in COLUMN_SUMS["table_03e"]
            for worse in ("rgb", "difference")
        ],
        *[
            ("table_03f", column, "both", worse)
            for column in COLUMN_SUMS["table_03f"]
            for worse in ("none", "prediction", "target")
        ],
        *[
            ("table_05", "Diving48 finetune", "fima_r2plus1d_k400", worse)
            for worse in ("tclr_r3d18_k400", "be_i3d_k400", "fame_i3d_k400")
        ],
        ("table_06", "UCF101 R@1", "dclr_r2plus1d_ucf101", "fima_r2plus1d_ucf101"),
        *[("table_06", column, "fima_i3d_ucf101", "fame_i3d_ucf101") for column in COLUMN_SUMS["table_06"]],
        *[
            ("table_06", column, "fima_r2plus1d_ucf101", "dclr_r2plus1d_ucf101")
            for column in COLUMN_SUMS["table_06"]
            if column != "UCF101 R@1"
        ],
        *[("table_07", column, "width_512", "width_256") for column in COLUMN_SUMS["table_07"]],
        ("table_08", "UCF101 linear", "shared", "different"),
        ("table_08", "parameters", "different", "shared"),
        ("table_09", "UCF101 linear", "infonce", "triplet"),
        ("table_09", "UCF101 linear", "triplet", "mse"),
        ("table_10", "UCF101 linear", "negatives_784", "negatives_98"),
        ("table_10", "UCF101 linear", "negatives_784", "negatives_1568"),
        ("table_11", "GPU-days", "dc_fs_md", "dc_fs"),
    ],
)
def test_orderings_in_words_hold_in_the_numbers(table, column, better, worse):
    assert value(table, better, column) > value(table, worse, column)


def test_differences_in_words_hold_in_the_numbers():
    "Section 4.3: 3.0 and 5.2 over FAME; B.5: 0.1 and 0.24 GPU-days; a sentence that holds for R(2+1)D alone."

    def gain(column):
        return round(value("table_04", "fima_i3d_ucf101", column) - value("table_04", "fame_i3d_ucf101", column), 1)

    assert (gain("UCF101 finetune"), gain("HMDB51 finetune")) == (3.0, 5.2)

    def days(row):
        return value("table_11", row, "GPU-days")

    assert round(days("dc") - days("vd"), 2) == 0.1 and round(days("dc_fs_md") - days("dc_fs"), 2) == 0.24
    table = published("table_04")
    for column in ("UCF101 linear", "HMDB51 linear"):
        assert table[table.column == column].nlargest(1, "value").method.item() == "FIMA"
    others = table[(table.method != "FIMA") & (table.pretrain == "Kinetics-400") & (table.column == "HMDB51 finetune")]
    ours = value("table_04", "fima_r2plus1d_ucf101", "HMDB51 finetune")
    assert ours > others.value[others.backbone == "R(2+1)D"].max() and ours < others.value.max()


def test_an_unknown_table_is_refused():
    with pytest.raises(ValueError, match="table_03a.*got 'table_3a'"):
        published("table_3a")
