# SPDX-License-Identifier: Apache-2.0
# Vendor commands that record their arguments. An undeclared command, option or number of arguments is an
# error, as in the tool. Log: one JSON object per command, in the file that VENDOR_LOG names.

namespace eval record {
    variable log [open $::env(VENDOR_LOG) a]
}

proc record::text {value} {
    return "\"[string map {\\ \\\\ \" \\\" \n \\n \t \\t} $value]\""
}

proc record::write {command options objects} {
    variable log
    set pairs {}
    dict for {name value} $options { lappend pairs "[text $name]: [text $value]" }
    set list [lmap object $objects { text $object }]
    set options "{[join $pairs {, }]}"
    set objects "\[[join $list {, }]\]"
    puts $log "{\"command\": [text $command], \"options\": $options, \"objects\": $objects}"
    flush $log
}

# declare NAME flags {-a} values {-b} objects {LEAST MOST} BODY, which sees the options as a dictionary `opt`
# and the other arguments as a list `objects`.
proc record::declare {name flags values count body} {
    proc ::$name {args} "
        lassign \[record::parse [list $name] [list $flags] [list $values] [list $count] \$args\] opt objects
        $body
    "
}

proc record::parse {name flags values count arguments} {
    set options [dict create]
    set objects {}
    for {set i 0} {$i < [llength $arguments]} {incr i} {
        set word [lindex $arguments $i]
        if {$word in $flags} {
            dict set options $word 1
        } elseif {$word in $values} {
            incr i
            if {$i >= [llength $arguments]} { error "$name: $word needs a value" }
            dict set options $word [lindex $arguments $i]
        } elseif {[regexp {^-[a-zA-Z_]} $word]} {
            error "$name has no option $word"
        } else {
            lappend objects $word
        }
    }
    lassign $count least most
    if {[llength $objects] < $least || [llength $objects] > $most} {
        error "$name takes $least to $most objects and got [llength $objects]: $objects"
    }
    write $name $options $objects
    return [list $options $objects]
}

proc record::need {condition sentence} {
    if {!$condition} { error $sentence }
}

# Parts of the boards of this project: any other name is an error here.
proc record::need_part {part} {
    need [expr {$part in {xczu7ev-ffvc1156-2-e xczu9eg-ffvb1156-2-e}}] "there is no part $part"
}
