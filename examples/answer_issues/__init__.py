"""An issue tracker's API as a provider: its open issues are listed, and each gets an answer."""
