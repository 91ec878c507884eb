"""SASLprep (RFC 4013): how names and passwords are made comparable before they are keyed or looked up."""


def saslprep(text: str, *, stored: bool) -> str | None:
    """`text` prepared; None where it holds what is prohibited, or mixes directions (RFC 3454 section 6).

    `stored`: prohibit characters that Unicode 3.2 does not know, as for what is stored; False for a query (RFC 3454
    section 7). RFC 5802 section 2.2 treats passwords as stored.
    """
    if text.isascii():
        # The tables leave ASCII as it is, and prohibit its control characters (C.2.1).
        return text if text.isprintable() else None
    import stringprep as tables  # slow to import; most names are ASCII
    from unicodedata import ucd_3_2_0

    # RFC 4013 section 2.1 and 2.2: spaces become one kind, some characters nothing; then normalization
    mapped = "".join(
        " " if tables.in_table_c12(c) else c for c in text if tables.in_table_c12(c) or not tables.in_table_b1(c)
    )
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    for c in prepared:
        # RFC 4013 section 2.3
        if (
            tables.in_table_c12(c)
            or tables.in_table_c21_c22(c)
            or tables.in_table_c3(c)
            or tables.in_table_c4(c)
            or tables.in_table_c5(c)
            or tables.in_table_c6(c)
            or tables.in_table_c7(c)
            or tables.in_table_c8(c)
            or tables.in_table_c9(c)
            or (stored and tables.in_table_a1(c))
        ):
            return None
    if any(tables.in_table_d1(c) for c in prepared):
        # RFC 3454 section 6: right-to-left text holds nothing left-to-right, and begins and ends with its own kind
        ends_well = tables.in_table_d1(prepared[0]) and tables.in_table_d1(prepared[-1])
        if not ends_well or any(tables.in_table_d2(c) for c in prepared):
            return None
    return prepared
