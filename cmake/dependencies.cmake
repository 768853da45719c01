# What comes from outside. scripts/setup.sh installs all of it; nothing is downloaded here.

find_package(Threads REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_path(ZSTD_INCLUDE zstd.h REQUIRED)
find_library(ZSTD_LIBRARY zstd REQUIRED)
add_library(tandem_zstd INTERFACE)
target_include_directories(tandem_zstd SYSTEM INTERFACE ${ZSTD_INCLUDE})
target_link_libraries(tandem_zstd INTERFACE ${ZSTD_LIBRARY})
find_package(ZLIB REQUIRED)
find_path(UTF8PROC_INCLUDE utf8proc.h REQUIRED)
find_library(UTF8PROC_LIBRARY utf8proc REQUIRED)
add_library(tandem_utf8proc INTERFACE)
target_include_directories(tandem_utf8proc SYSTEM INTERFACE ${UTF8PROC_INCLUDE})
target_link_libraries(tandem_utf8proc INTERFACE ${UTF8PROC_LIBRARY})
include(sentencepiece)
if(TANDEM_TESTS)
  find_package(GTest REQUIRED)
  find_library(PCRE2_LIBRARY pcre2-8 REQUIRED)
  add_library(tandem_pcre2 INTERFACE)  # what pre-tokenizers are tested against
  target_link_libraries(tandem_pcre2 INTERFACE ${PCRE2_LIBRARY})
endif()

# LibTorch through a target of our own: find_package(Torch) insists on a CUDA toolkit and adds definitions that differ between builds, so
# objects could not be shared by ccache. Taken from -DTorch_DIR (LIBTORCH/share/cmake/Torch) or from the wheel in .venv.
if(TANDEM_TORCH)
  if(Torch_DIR)
    get_filename_component(TANDEM_TORCH_ROOT ${Torch_DIR}/../../.. ABSOLUTE)
  else()
    file(GLOB TANDEM_TORCH_ROOT ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
  endif()
  if(NOT EXISTS "${TANDEM_TORCH_ROOT}/lib/libtorch_cpu.so")
    message(FATAL_ERROR "LibTorch not found: run scripts/setup.sh or give -DTorch_DIR=LIBTORCH/share/cmake/Torch")
  endif()
  add_library(tandem_torch INTERFACE)
  add_library(tandem::torch ALIAS tandem_torch)
  target_include_directories(tandem_torch SYSTEM INTERFACE ${TANDEM_TORCH_ROOT}/include
                                                           ${TANDEM_TORCH_ROOT}/include/torch/csrc/api/include)
  # fmt 12 comes inside the wheel, without its library.
  target_compile_definitions(tandem_torch INTERFACE FMT_HEADER_ONLY)
  target_link_libraries(tandem_torch INTERFACE ${TANDEM_TORCH_ROOT}/lib/libtorch_cpu.so ${TANDEM_TORCH_ROOT}/lib/libc10.so
                                               Threads::Threads)
  if(TANDEM_CUDA)
    if(NOT EXISTS "${TANDEM_TORCH_ROOT}/lib/libtorch_cuda.so")
      message(FATAL_ERROR "TANDEM_CUDA is ON, but ${TANDEM_TORCH_ROOT} is a CPU build of LibTorch")
    endif()
    # Its kernels register themselves when it is loaded; no symbol of it is named by us, so the linker must be told to keep it.
    target_link_options(tandem_torch INTERFACE -Wl,--no-as-needed ${TANDEM_TORCH_ROOT}/lib/libtorch_cuda.so
                                               ${TANDEM_TORCH_ROOT}/lib/libc10_cuda.so -Wl,--as-needed
                                               -Wl,--allow-shlib-undefined)
  endif()
  set(CMAKE_BUILD_RPATH "$ORIGIN" ${TANDEM_TORCH_ROOT}/lib)
  message(STATUS "LibTorch: ${TANDEM_TORCH_ROOT}")
endif()
