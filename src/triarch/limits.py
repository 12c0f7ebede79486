"""Every bound on what comes from outside, in one table. Sizes are bytes unless the name says otherwise."""

KIB, MIB = 1 << 10, 1 << 20

# Files of a checkpoint folder
JSON_BYTES = 16 * MIB  # config.json, tokenizer_config.json, modules.json and their like
INDEX_BYTES = 64 * MIB  # model.safetensors.index.json
TOKENIZER_BYTES = 256 * MIB  # tokenizer.json, vocabularies, SentencePiece models
HEADER_BYTES = 16 * MIB  # safetensors header: room for TENSORS names of 160 bytes
SHARDS = 10_000
TENSORS = 100_000
TENSOR_DIMENSIONS = 8
PICKLE_BYTES = 16 * MIB  # the part of a legacy .bin that describes tensors
MODULES = 100  # of modules.json; real ones list up to five
SIDECAR_BYTES = 64 * MIB  # sentence-transformers modules beside the model

# What a config may ask for; anything real is far below
HIDDEN_SIZE = 1 << 17
LAYERS = 1 << 8
VOCABULARY = 1 << 24
POSITIONS = 1 << 24
ROTARY_BASE = 1 << 40  # rope_theta, and the numbers of rope_scaling
LABELS = 1 << 20

# Input
TEXT_CHARACTERS = 12_000_000
LINE_BYTES = 80 * MIB  # one line of a file or pipe
WINDOWS = 100_000  # windows of one input
CANDIDATE_LABELS = 10_000
ANSWERS = 10_000  # top_k and the like

# Images
IMAGE_BYTES = 64 * MIB  # of a file; those of cameras hold up to about 50
IMAGE_PIXELS = 50_000_000  # once decoded, and of what a step makes of them
IMAGE_SIDE = 1 << 14
IMAGE_PARTS = 50_000  # segments, chunks or frames that a file is made of
IMAGE_WORK = 1_000_000_000  # pixels times the scans of a JPEG, each of which passes over all of them
IMAGE_RUNS = 1 << 20  # pixels, or bytes, of a BMP packed in runs, which is unpacked slowly
FETCH_SECONDS = 20  # for an image from a URL
FETCH_REDIRECTS = 3

# Legacy .bin files
ARCHIVE_RECORDS = 65_000  # one for each storage, and a few about the file itself
PICKLE_STEPS = 1_500_000  # instructions of the part that describes tensors; a tensor takes about 35
STORAGE_READS = 4  # how many times over the tensors of a file may read its bytes, by sharing them

# Vocabularies
MERGES = 1 << 21  # of a BPE vocabulary
SENTENCEPIECE_BYTES = 16 * MIB  # the largest in use hold about 5
TEXT_GROWTH = 64  # by the replacements of a tokenizer.json; real ones at most double a space
PIECE_CHARACTERS = 256  # one piece of a SentencePiece model
NORMALIZED_BYTES = 256  # what its normalisation may make of one character

# Chat templates: programs that come with a checkpoint
TEMPLATES = 64  # of one checkpoint
TEMPLATE_CHARACTERS = 256 * KIB  # the largest in use hold about 30 thousand
TEMPLATE_SECONDS = 0.25  # of the processor's time, to render one conversation
TEMPLATE_MEMORY = 256 * MIB  # of the process that renders
CONVERSATION_BYTES = 8 * MIB  # as JSON
CONVERSATION_DEPTH = 64  # lists and dicts in each other: tools are JSON schemas
RENDERED_CHARACTERS = 1 * MIB  # what a template may make of a conversation

# Training data
WHOLE_BYTES = 512 * MIB  # a file that is read at once: a text, a JSON list, SQuAD; one row a line has no such bound
UNPACKED_BYTES = 64 << 30  # what a .gz file may unpack to
UNPACKED_RATIO = 200  # times its own size; text packs to a third, tables of few words to a fiftieth
COMPLAINTS = 1_000  # bad rows that are kept to be shown; all are counted
ORIGINS = 10_000  # files, and stretches of them, that a token store knows its documents from
BLOCK_CHARACTERS = 100_000  # of running text, tokenized at once

# Generation
SEQUENCES = 1 << 8  # beams, or sequences of one prompt
ROWS = 1 << 10  # sequences that are worked on at once
DRAWN = 1 << 24  # tokens that beams draw from, those of all beams of a prompt together; torch takes no more
STOPS, STOP_CHARACTERS = 64, 1024
FORCED = 1 << 10  # ids of phrases that must occur
ALTERNATIVES = 100  # of each token, with their log-probabilities
SEED = 1 << 63

# Forms of what is generated: JSON schemas, regular expressions, grammars, choices
FORM_CHARACTERS = 64 * KIB
FORM_DEPTH = 64  # brackets in brackets
FORM_RULES = 500  # lines of a grammar, or different $ref of a schema
FORM_FUEL = 100_000  # what llguidance may spend on the lexer; a second is about 200,000
FORMS_KEPT = 64  # compiled, of each tokenizer
