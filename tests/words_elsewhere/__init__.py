"""The rows of the page docs/the_same_word_elsewhere.md, which tests/test_same_word.py runs.

``PYTHONPATH=tests python -m words_elsewhere`` writes the page.
"""
