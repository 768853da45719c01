#include "tests/ledger/ledger.h"

int main(int argc, char** argv) { return tandem::ledger_main(argc, argv); }
