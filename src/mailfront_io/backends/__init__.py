"""The backends that come with mailfront, one file each."""
