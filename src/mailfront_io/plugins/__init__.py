"""The plugins that come with mailfront, one file each."""
