# Imported targets for the sentencepiece that scripts/build_sentencepiece.sh installs into TANDEM_DEPS_DIR:
#   tandem::sentencepiece         encoding and decoding
#   tandem::sentencepiece_train   learning vocabularies
# The archives carry their own protobuf, and LibTorch carries another: what links them keeps their symbols to itself.
set(TANDEM_DEPS_DIR "${CMAKE_SOURCE_DIR}/.deps" CACHE PATH "Where scripts/setup.sh installs libraries built from source")

function(tandem_import_sentencepiece name)
  # Debian's GNUInstallDirs may choose lib64 or lib/<triplet>; the script asks for lib.
  set(archive "${TANDEM_DEPS_DIR}/lib/lib${name}.a")
  if(NOT EXISTS "${archive}")
    message(FATAL_ERROR "${archive} is missing: run scripts/setup.sh or scripts/build_sentencepiece.sh ${TANDEM_DEPS_DIR}")
  endif()
  add_library(tandem::${name} STATIC IMPORTED GLOBAL)
  set_target_properties(tandem::${name} PROPERTIES
    IMPORTED_LOCATION "${archive}"
    INTERFACE_INCLUDE_DIRECTORIES "${TANDEM_DEPS_DIR}/include")
endfunction()

if(NOT TARGET tandem::sentencepiece)
  find_package(Threads REQUIRED)
  tandem_import_sentencepiece(sentencepiece)
  tandem_import_sentencepiece(sentencepiece_train)
  target_link_libraries(tandem::sentencepiece INTERFACE Threads::Threads)
  target_link_libraries(tandem::sentencepiece_train INTERFACE tandem::sentencepiece)
  target_link_options(tandem::sentencepiece INTERFACE "LINKER:--exclude-libs,ALL")
endif()
