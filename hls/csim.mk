# SPDX-License-Identifier: Apache-2.0
# C simulation of the accelerator, included by the Makefile.
#   make csim                    build/hls/libedge_moe_<hash of the configuration>.so, and its board as .json
#   make csim VARIANT=sanitize   the same under sanitizers, at another optimisation level, with exact widths

CSIM_SOURCES := src/edge_moe.cpp src/csim.cpp
CSIM_BUILD = $(BUILD)/csim_$(VARIANT)
CSIM_LIBRARY = $(CSIM_BUILD)/libedge_moe.so

.PHONY: csim

# A bundle names its accelerator by the configuration's hash, and so does the library of VARIANT O3.
csim: $(CSIM_LIBRARY)
	@hash=$$(sed -n 's/.*uint64_t hash = 0x\([0-9a-f]*\)u.*/\1/p' $(GENERATED)/edge_moe_config.hpp); \
	  if [ "$(VARIANT)" = O3 ]; then \
	    cp $< ../build/hls/.libedge_moe_$$hash.$$$$ \
	      && mv ../build/hls/.libedge_moe_$$hash.$$$$ ../build/hls/libedge_moe_$$hash.so \
	      && { test ! -f $(GENERATED)/edge_moe_board.json \
	        || cp $(GENERATED)/edge_moe_board.json ../build/hls/libedge_moe_$$hash.json; } \
	      && echo "build/hls/libedge_moe_$$hash.so"; \
	  else echo "$(patsubst ../%,%,$<)"; fi

# One translation unit: the headers are most of it.
$(CSIM_LIBRARY): $(CSIM_SOURCES) $(HEADERS) Makefile csim.mk | check-tools
	@mkdir -p $(@D)
	@printf '#include "%s"\n' $(CSIM_SOURCES) > $(@D)/csim.cpp
	$(CXX) $(FLAGS) -I. -MMD -MP -MF $(@D)/csim.d -MT $@ -shared $(@D)/csim.cpp -o $@.part
	@mv $@.part $@

-include $(CSIM_BUILD)/csim.d
